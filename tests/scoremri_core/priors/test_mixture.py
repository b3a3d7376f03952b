"""The mixture prior against its own log-density, and closed forms against their definitions."""

import math

import numpy as np
import pytest
import torch

from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import denoise_with_variance
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.priors.mixture import GaussianMixturePrior
from scoremri_core.studies.validate.closed_form import ClosedForm


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def complex_normal(*shape, seed=0):
    draws = torch.randn(*shape, 2, generator=generator(seed), dtype=torch.float64)
    return torch.view_as_complex(draws)


@pytest.fixture
def mixture():
    """Two kinds of 5 x 6 images, of different mean and spectrum, that overlap."""
    return GaussianMixturePrior(
        torch.tensor([1.0, 3.0], dtype=torch.float64),
        0.3 * complex_normal(2, 5, 6, seed=1),
        torch.rand(2, 5, 6, generator=generator(2), dtype=torch.float64) + 0.05,
    )


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_denoiser_follows_the_log_density(mixture, sigma):
    """Tweedie's formula, D = x + sigma^2 grad log p_sigma, by differences in every pixel."""
    x = mixture.sample(1, generator(3)) + sigma * complex_normal(1, 5, 6, seed=4)
    h = 1e-5 * sigma
    basis = torch.eye(30, dtype=torch.complex128).view(30, 5, 6)
    steps = torch.cat([h * basis, 1j * h * basis])
    sigmas = torch.full((60,), sigma, dtype=torch.float64)
    rise = mixture.log_density(x + steps, sigmas) - mixture.log_density(x - steps, sigmas)
    gradient = torch.complex(*(rise / (2 * h)).view(2, 5, 6))
    torch.testing.assert_close(
        mixture.denoise(x, sigmas[:1])[0], x[0] + sigma**2 * gradient, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_one_pixel_against_numerical_integration(sigma):
    """Mean and variance of x0 given x, summed over a grid of x0."""
    weights, means, variances = [0.4, 0.6], [-0.7 + 0.2j, 0.9], [0.1, 0.3]
    prior = GaussianMixturePrior(
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor(means, dtype=torch.complex128).view(2, 1, 1),
        torch.tensor(variances, dtype=torch.float64).view(2, 1, 1),
    )
    axis = np.linspace(-5, 5, 1001)
    x0 = axis[:, None] + 1j * axis
    density = sum(
        w / v * np.exp(-(np.abs(x0 - m) ** 2) / (2 * v))
        for w, m, v in zip(weights, means, variances, strict=True)
    )
    x = 0.2 - 0.3j
    density = density * np.exp(-(np.abs(x - x0) ** 2) / (2 * sigma**2))
    density /= density.sum()
    mean = (density * x0).sum()
    variance = (density * np.abs(x0 - mean) ** 2).sum() / 2
    denoised, found = prior.denoise_with_variance(
        torch.tensor([[[x]]], dtype=torch.complex128), torch.tensor([sigma], dtype=torch.float64)
    )
    assert complex(denoised) == pytest.approx(mean, rel=1e-5)
    assert float(found) == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_variance_is_the_denoisers_mean_squared_error(mixture, sigma):
    x0 = mixture.sample(20_000, generator(5))
    e = complex_normal(20_000, 5, 6, seed=6)
    denoised, variance = denoise_with_variance(mixture, x0, e, sigma)
    error = (denoised - x0).abs().square().mean() / 2
    assert float(error) == pytest.approx(float(variance.mean()), rel=0.01)


def test_a_mixture_of_one_is_a_gaussian():
    spectrum = torch.rand(5, 6, generator=generator(7)) + 0.1
    mixture = GaussianMixturePrior(
        torch.ones(1), torch.zeros(1, 5, 6, dtype=torch.complex64), spectrum[None]
    )
    x, sigma = complex_normal(3, 5, 6).to(torch.complex64), torch.tensor([0.1, 0.5, 2.0])
    for found, expected in zip(
        mixture.denoise_with_variance(x, sigma),
        GaussianPrior(spectrum).denoise_with_variance(x, sigma),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.fixture
def operator():
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[:, ::2] = True
    maps = complex_normal(1, 1, 2, 5, 6, seed=8).to(torch.complex64)
    return SenseOperator(maps / maps.abs().square().sum(2, keepdim=True).sqrt(), mask)


def test_closed_form_maximises_the_log_posterior_of_a_gaussian(operator):
    prior = GaussianPrior(torch.rand(5, 6, generator=generator(9)) + 0.1)
    data = operator.forward(prior.sample(1, generator(10))[None, :, None])[:, 0]
    x = ClosedForm(prior, operator, 0.2).given(data).mean().view(1, 1, 1, 5, 6)
    x = x.to(torch.complex64)
    pull = operator.adjoint(data[:, None] - operator.forward(x)) / 0.2**2
    torch.testing.assert_close(pull, to_image(to_kspace(x) / prior.spectrum), rtol=0, atol=1e-4)


@pytest.fixture
def ambiguous(mixture):
    """Kinds that data of much noise cannot tell apart."""
    spectrum = mixture.spectra[:1].float()
    return GaussianMixturePrior(
        mixture.weights.float(),
        0.5 * mixture.means.to(torch.complex64),
        torch.cat([spectrum, 1.2 * spectrum]),
    )


def test_mixture_posterior_by_importance(ambiguous, operator):
    """Mean and sd against draws of the prior weighted by the likelihood."""
    prior, sigma_n, count = ambiguous, 2.0, 200_000
    data = operator.forward(prior.sample(1, generator(11))[None, :, None])[:, 0]
    posterior = ClosedForm(prior, operator, sigma_n).given(data)
    assert 0.05 < float(posterior.weights[0, 0]) < 0.95  # both kinds matter
    draws = prior.sample(count, generator(12))
    misfit = (data - operator.forward(draws[None, :, None])[0]).abs().square().sum((1, 2, 3))
    importance = torch.softmax(-misfit.double() / (2 * sigma_n**2), 0)[:, None]
    assert float(1 / importance.square().sum()) > 5000  # effective draws
    images = draws.reshape(count, -1).to(torch.complex128)
    mean = (importance * images).sum(0)
    sd = ((importance * (images - mean).abs().square()).sum(0) / 2).sqrt()
    torch.testing.assert_close(posterior.mean()[0], mean, rtol=0, atol=0.04)
    torch.testing.assert_close(posterior.sd()[0], sd, rtol=0.04, atol=0)


def test_exact_draws_have_the_moments_of_the_posterior(ambiguous, operator):
    prior = ambiguous
    data = operator.forward(prior.sample(2, generator(11))[:, None, None])[:, 0]
    posterior = ClosedForm(prior, operator, 1.0).given(data)
    draws = posterior.sample(20_000, generator(13))
    apart = draws - posterior.mean()[:, None]
    scale = float(posterior.sd().max()) / math.sqrt(20_000)
    assert float(apart.mean(1).abs().max()) < 6 * scale
    for frame in range(2):
        expected = posterior.covariance(frame)
        found = apart[frame].T @ apart[frame].conj() / (2 * 20_000)
        error = torch.linalg.norm(found - expected) / torch.linalg.norm(expected)
        assert float(error) < 0.05
        torch.testing.assert_close(expected.diagonal().real.sqrt(), posterior.sd()[frame])
