"""The Gibbs reference against posteriors that are known, and the exact denoiser against it."""

import math

import numpy as np
import pytest
import torch

from scoremri_core.mri.sense import SenseOperator
from scoremri_core.samplers.posterior import PosteriorOptions, sample_posterior
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.studies.validate.closed_form import ClosedForm
from scoremri_core.studies.validate.increments import (
    ATOM,
    KINDS,
    GibbsReference,
    Increments,
    _inverse_gaussian,
)
from scoremri_core.studies.validate.validation import SparseCase

SIGMA_N = 0.15


def operator(sampled):
    maps = torch.ones(1, 1, 1, len(sampled), 1, dtype=torch.complex64)
    return SenseOperator(maps, torch.tensor(sampled)[None, :, None])


def generator():
    return torch.Generator().manual_seed(0)


def data(prior, a):
    truth = prior.sample(1, generator()).to(torch.complex64)
    noise = torch.view_as_complex(torch.randn(1, prior.length, 1, 2, generator=generator()))
    return a.forward(truth[None, :, None])[0, 0] + SIGMA_N * a.mask[0, 0, 0] * noise


@pytest.mark.parametrize("kind", KINDS)
def test_increments_have_the_variance_that_they_shall(kind):
    x = Increments(kind, 4).sample(40_000, generator())
    variance = torch.view_as_real(x).var(0).mean(-1)
    # a heavy tail says its variance slowly
    np.testing.assert_allclose(
        variance[:, 0], [0.04, 0.08, 0.12, 0.16], rtol=0.15 if kind == "student" else 0.04
    )
    if kind == "bernoulli-laplace":
        steps = torch.view_as_real(x).diff(dim=1).abs() < 1e-12
        assert float(steps.double().mean()) == pytest.approx(ATOM, abs=0.01)


def test_gaussian_increments_have_a_posterior_in_closed_form():
    """By the covariance of a running sum, through dense matrices of another kind."""
    prior, a = Increments("gaussian", 8), operator([True, False, True, False] * 2)
    y = data(prior, a)
    reference = GibbsReference(prior, a, SIGMA_N)
    drawn = reference.sample(y, 4000, generator())
    n = prior.length
    steps = torch.tril(torch.ones(n, n, dtype=torch.float64))
    inverse = torch.linalg.inv(prior.variance * steps @ steps.T)
    basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, n, 1)
    forward = a.forward(basis).reshape(n, -1).T.to(torch.complex128)[a.mask.flatten()]
    covariance = torch.linalg.inv(forward.mH @ forward / SIGMA_N**2 + inverse)
    mean = covariance @ forward.mH @ y.to(torch.complex128).flatten()[a.mask.flatten()]
    mean = mean / SIGMA_N**2
    sd = covariance.diagonal().real.sqrt()
    assert float(((drawn.mean(0) - mean).abs() / sd).max()) < 5 / math.sqrt(4000)
    apart = drawn - drawn.mean(0)
    found = apart.T @ apart.conj() / 2 / len(drawn)
    torch.testing.assert_close(found, covariance, rtol=0, atol=0.06 * float(sd.max()) ** 2)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_one_increment_has_the_posterior_of_an_integral(kind):
    """Of one point, whose density is prior times likelihood."""
    prior, a = Increments(kind, 1), operator([True])
    y = torch.tensor([[[0.4 - 0.1j]]])
    drawn = torch.view_as_real(GibbsReference(prior, a, SIGMA_N).sample(y, 6000, generator()))[:, 0]
    u = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    if kind == "student":
        density = (1 + (u / prior.scale) ** 2 / 3) ** -2
    else:
        density = (-u.abs() / prior.scale).exp()
    density = density / density.sum()
    if kind == "bernoulli-laplace":
        density = (1 - ATOM) * density
        density[40_000] += ATOM
    for component, seen in enumerate((0.4, -0.1)):
        posterior = density * (-((seen - u) ** 2) / 2 / SIGMA_N**2).exp()
        posterior = posterior / posterior.sum()
        mean = float(posterior @ u)
        sd = math.sqrt(float(posterior @ u**2) - mean**2)
        assert float(drawn[:, component].mean()) == pytest.approx(mean, abs=5 * sd / 77)
        assert float(drawn[:, component].std()) == pytest.approx(sd, rel=0.06)
        if kind == "bernoulli-laplace":
            zero = float((drawn[:, component].abs() < 1e-9).double().mean())
            assert zero == pytest.approx(float(posterior[40_000]), abs=0.035)


@pytest.mark.parametrize("kind", KINDS)
def test_the_denoiser_is_the_mean_of_gibbs_sampling(kind):
    """Messages on a grid against draws: A is the Fourier transform, all of it, of x."""
    prior, a, sigma = Increments(kind, 6), operator([True] * 6), 0.25
    x = prior.sample(1, generator())
    x = x + sigma * torch.view_as_complex(torch.randn(1, 6, 1, 2, generator=generator()))
    mean, variance = prior.denoise_with_variance(x, torch.tensor([sigma]))
    y = a.forward(x[None, :, None].to(torch.complex64))[0, 0]
    drawn = GibbsReference(prior, a, sigma).sample(y, 1500, generator(), sweeps=25)
    sd = variance[0, :, 0].sqrt()
    assert float(((drawn.mean(0) - mean[0, :, 0]).abs() / sd).max()) < 6 / math.sqrt(1500)
    spread = torch.view_as_real(drawn).var(0).mean(-1).sqrt()
    np.testing.assert_allclose(spread, sd, rtol=0.06)
    # at next to no noise an image is what it is
    near = prior.denoise(x, torch.tensor([0.01]))
    assert float((near - x).abs().max()) < 0.03


def test_inverse_gaussian_numbers_have_their_moments():
    mean = torch.full((200_000,), 0.7, dtype=torch.float64)
    drawn = _inverse_gaussian(mean, 2.0, (200_000,), generator())
    assert float(drawn.mean()) == pytest.approx(0.7, rel=0.01)
    assert float(drawn.var()) == pytest.approx(0.7**3 / 2, rel=0.05)
    assert float((1 / drawn).mean()) == pytest.approx(1 / 0.7 + 1 / 2, rel=0.01)


def test_closed_form_and_gibbs_take_the_same_operator():
    """The closed form's matrix of the same scan is ours, summed up."""
    from scoremri_core.priors.gaussian import GaussianPrior

    a = operator([True, True, False, True])
    closed = ClosedForm(GaussianPrior(torch.ones(4, 1)), a, SIGMA_N)
    found = GibbsReference(Increments("laplace", 4), a, SIGMA_N).matrix
    sums = torch.tril(torch.ones(4, 4, dtype=torch.float64)).to(torch.complex128)
    expected = closed.forward @ sums
    torch.testing.assert_close(found[:3, :4], expected.real)
    torch.testing.assert_close(found[3:, :4], expected.imag)


@pytest.mark.parametrize("steps", [10, 40])
def test_a_handful_of_points_does_not_lead_the_noise_astray(steps):
    """The rule that raises it (`adapt_noise`, the default) leaves samples at the data."""
    case = SparseCase("partial Fourier", "gaussian", 16, 0.05)
    prior, a = case.problem()
    truth = prior.sample(1, generator()).to(torch.complex64)
    clean = a.forward(truth[None, :, None])[0]  # (truth, coil, y, x)
    e = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=generator()))
    seen = clean + case.sigma_n * a.mask[0, 0] * e
    level = torch.full((1,), case.sigma_n)
    noise = SampleNoise(0, 79, torch.device("cpu"))
    options = PosteriorOptions(steps=steps, balanced=False)
    images, _ = sample_posterior(a, seen, level, prior, noise, options)
    known = case.known(prior, a)
    exact = known.draw(seen, 79, generator())
    found, best = (
        known.scores(each.reshape(1, 79, -1), truth.flatten(1), seen) for each in (images, exact)
    )
    assert found["residual_chi2"] < 1.3 * best["residual_chi2"]
    assert 0.9 < found["sd_ratio"] < 1.15
