"""The default sampler against the closed-form posterior of a Gaussian prior."""

from dataclasses import dataclass

import numpy as np
import pytest
import sigpy.mri
import torch

from scoremri_core.mri.fourier import to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import LEAST_POWER, denoise_with_error, denoise_with_variance
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.samplers.posterior import (
    MEAN_SHARE,
    PosteriorOptions,
    regularize_variance,
    sample_posterior,
)
from scoremri_core.samplers.random_numbers import SampleNoise, effective_samples

SIDE, COILS, SIGMA_N, SAMPLES = 20, 4, 0.05, 200


@dataclass
class Problem:
    prior: GaussianPrior
    operator: SenseOperator
    data: torch.Tensor
    mean: torch.Tensor  # (pixel,) complex
    sd: torch.Tensor  # (pixel,) of each real component
    covariance: torch.Tensor  # (pixel, pixel)

    @property
    def widest(self):
        """Directions in which the posterior is widest, (pixel, direction)."""
        return torch.linalg.eigh(self.covariance)[1][:, -20:]

    @property
    def widths(self):
        """Variances along these."""
        return torch.linalg.eigh(self.covariance)[0][-20:]


@pytest.fixture(scope="module")
def problem():
    """R = 4 with 4 calibration lines, 4 coils, a 1 / f^2 prior: solved densely."""
    maps = sigpy.mri.birdcage_maps((COILS, SIDE, SIDE))
    maps = maps / np.sqrt((np.abs(maps) ** 2).sum(0))
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2::4] = mask[8:12] = True
    k = np.arange(SIDE) - SIDE // 2
    spectrum = torch.from_numpy(1 / (1.0 + k[:, None] ** 2 + k**2)).float()
    prior = GaussianPrior(0.3 * spectrum / spectrum.mean())
    operator = SenseOperator(torch.from_numpy(maps.astype(np.complex64))[None, None], mask[None])
    generator = torch.Generator().manual_seed(1)
    truth = prior.sample(1, generator)[None, :, None]
    e = torch.view_as_complex(torch.randn(1, COILS, SIDE, SIDE, 2, generator=generator))
    data = operator.forward(truth)[:, 0] + SIGMA_N * mask * e

    n = SIDE**2
    basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, SIDE, SIDE)
    a = operator.forward(basis).reshape(n, -1).T.to(torch.complex128)
    f = to_kspace(basis).reshape(n, n).T.to(torch.complex128)
    precision = a.mH @ a / SIGMA_N**2 + f.mH @ (f / prior.spectrum.reshape(n, 1).double())
    covariance = torch.linalg.inv(precision)  # of each real component
    mean = covariance @ (a.mH @ data.reshape(-1).to(torch.complex128)) / SIGMA_N**2
    return Problem(prior, operator, data, mean, covariance.diagonal().real.sqrt(), covariance)


class WithoutVariance:
    """A prior that denoises and tells nothing of its error."""

    def __init__(self, prior):
        self.denoise = prior.denoise


class WithoutSpectrum(WithoutVariance):
    """A prior that tells the variance of its error, not at which frequencies it lies."""

    def __init__(self, prior):
        super().__init__(prior)
        self.denoise_with_variance = prior.denoise_with_variance


def moments(problem, prior, steps, **options):
    images, evaluations = sample_posterior(
        problem.operator,
        problem.data,
        torch.tensor([SIGMA_N]),
        prior,
        SampleNoise(0, SAMPLES, torch.device("cpu")),
        PosteriorOptions(steps=steps, balanced=False, **options),
    )
    images = images.reshape(SAMPLES, -1)
    sd = torch.view_as_real(images).var(0).mean(-1).sqrt()
    error = (images.mean(0) - problem.mean).abs() / (problem.sd * 2**0.5)
    return error.square().mean().sqrt(), (sd / problem.sd).mean(), evaluations


@pytest.mark.parametrize(("steps", "error_over_floor"), [(5, 1.2), (10, 1.1), (20, 1.1)])
def test_exact_draw_reaches_the_exact_posterior(problem, steps, error_over_floor):
    error, ratio, evaluations = moments(problem, problem.prior, steps)
    assert evaluations == steps
    assert error < error_over_floor * SAMPLES**-0.5
    assert abs(ratio - 1) < 0.01


def exactly(problem, data, precision):
    """Mean and covariance of the posterior where samples (y, x) have noise of such a precision."""
    n = SIDE**2
    basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, SIDE, SIDE)
    a = problem.operator.forward(basis).reshape(n, -1).T.to(torch.complex128)
    f = to_kspace(basis).reshape(n, n).T.to(torch.complex128)
    w = precision.expand(COILS, SIDE, SIDE).reshape(-1, 1).double()
    inverse = a.mH @ (w * a) + f.mH @ (f / problem.prior.spectrum.reshape(n, 1).double())
    covariance = torch.linalg.inv(inverse)  # of each real component
    return covariance @ (a.mH @ (w[:, 0] * data.reshape(-1).to(torch.complex128))), covariance


# where the noise adapts, chance raises it by a little, the more the better it is averaged
@pytest.mark.parametrize(
    ("partial", "adapt", "error_over_floor", "sd_tolerance"),
    [(False, False, 1.1, 0.01), (True, False, 1.1, 0.01), (False, True, 1.3, 0.03)],
)
def test_lines_averaged_more_often_count_more(
    problem, partial, adapt, error_over_floor, sd_tolerance
):
    """Noise of variance s^2 / n in a sample averaged n times, against the dense posterior."""
    averages = torch.ones(SIDE, SIDE)
    averages[2::8] = 16  # half of the lines beyond the calibration
    averages[8:12] = 4
    if partial:
        averages[..., :3] = 1
    mask = problem.operator.mask[0, 0, 0]
    generator = torch.Generator().manual_seed(2)
    truth = problem.prior.sample(1, generator)[None, :, None]
    e = torch.view_as_complex(torch.randn(1, COILS, SIDE, SIDE, 2, generator=generator))
    data = problem.operator.forward(truth)[:, 0] + SIGMA_N * mask * e / averages.sqrt()

    mean, covariance = exactly(problem, data, averages / SIGMA_N**2)
    sd = covariance.diagonal().real.sqrt()
    assert (problem.sd / sd).mean() > 1.05  # it matters: they are not as if averaged alike

    operator = SenseOperator(problem.operator.maps, mask[None], averages[None])
    weighted = data * averages.sqrt()
    exact = Problem(problem.prior, operator, weighted, mean, sd, covariance)
    error, ratio, _ = moments(exact, problem.prior, 10, adapt_noise=adapt)
    assert error < error_over_floor * SAMPLES**-0.5
    assert abs(ratio - 1) < sd_tolerance


# so little of the line counts where it is ten times as noisy that its variance is a guess
@pytest.mark.parametrize(
    ("times", "error_over_floor", "sd_tolerance"), [(10, 4, 0.05), (1000, 1.1, 0.01)]
)
def test_a_corrupt_line_does_no_harm(problem, times, error_over_floor, sd_tolerance):
    """One with so many times the noise that is believed, against the posterior that knows it."""
    line = 14
    generator = torch.Generator().manual_seed(3)
    e = torch.view_as_complex(torch.randn(COILS, SIDE, 2, generator=generator))
    data = problem.data.clone()
    data[0, :, line] += (times**2 - 1) ** 0.5 * SIGMA_N * e
    precision = torch.full((SIDE, SIDE), SIGMA_N**-2)
    precision[line] /= times**2
    mean, covariance = exactly(problem, data, precision)
    sd = covariance.diagonal().real.sqrt()
    exact = Problem(problem.prior, problem.operator, data, mean, sd, covariance)
    believed, _ = exactly(problem, data, torch.full((SIDE, SIDE), SIGMA_N**-2))
    assert ((believed - mean).abs() / sd).square().mean().sqrt() > 1  # it would
    error, ratio, _ = moments(exact, problem.prior, 10)
    assert error < error_over_floor * SAMPLES**-0.5
    assert abs(ratio - 1) < sd_tolerance


# design notes: mean error .118 at 20 and .074 at 100 evaluations over a Monte-Carlo floor of
# .071; sd ratio 1.006 and 1.001
@pytest.mark.parametrize(
    ("steps", "error_over_floor", "sd_tolerance"), [(20, 1.7, 0.02), (100, 1.1, 0.01)]
)
def test_with_one_variance_it_takes_more_evaluations(
    problem, steps, error_over_floor, sd_tolerance
):
    error, ratio, _ = moments(problem, WithoutSpectrum(problem.prior), steps)
    assert error < error_over_floor * SAMPLES**-0.5
    assert abs(ratio - 1) < sd_tolerance


@pytest.mark.parametrize(("steps", "error_over_floor"), [(10, 1.2), (20, 1.15)])
def test_a_prior_that_does_not_tell_its_error_does_as_well(problem, steps, error_over_floor):
    """Variance and spectrum of the error are found from the sampler's own noise."""
    error, ratio, evaluations = moments(problem, WithoutVariance(problem.prior), steps)
    assert evaluations == steps
    assert error < error_over_floor * SAMPLES**-0.5
    assert abs(ratio - 1) < 0.01


def test_solving_takes_few_iterations_at_every_level(problem, caplog):
    with caplog.at_level("DEBUG", logger="scoremri_core"):
        moments(problem, problem.prior, 20)
    iterations = [int(r.args[0]) for r in caplog.records if "iterations" in r.msg]
    assert len(iterations) == 21  # the start is solved for too
    assert max(iterations) <= 15


@pytest.mark.parametrize("sigma", [0.02, 0.3, 2.0])
def test_error_by_steins_lemma_is_the_closed_form(problem, sigma):
    x0 = problem.prior.sample(50, torch.Generator().manual_seed(0))
    e = torch.view_as_complex(
        torch.randn(50, SIDE, SIDE, 2, generator=torch.Generator().manual_seed(1))
    )
    denoised, expected = denoise_with_variance(problem.prior, x0, e, sigma)
    again, found, spectrum = denoise_with_error(WithoutVariance(problem.prior), x0, e, sigma)
    torch.testing.assert_close(again, denoised)
    torch.testing.assert_close(found.mean(), expected.mean(), rtol=0.05, atol=0)
    known = problem.prior.error_spectrum(sigma, (SIDE, SIDE)).clamp(min=LEAST_POWER)
    assert float((spectrum.mean(0) - known).norm() / known.norm()) < 0.15


def test_the_schedule_starts_where_the_measurements_leave_off(problem):
    """A prior that knows its images' power starts at a level that grows with what is open."""
    levels = []

    class Recorded(GaussianPrior):
        def denoise_with_variance(self, x, sigma):
            levels.append(sigma.unique())
            return super().denoise_with_variance(x, sigma)

    first = []
    for sigma_n in (0.001, 0.005, 0.02):
        levels.clear()
        sample_posterior(
            problem.operator,
            problem.data / 10,
            torch.tensor([sigma_n]),
            Recorded(problem.prior.spectrum / 100),
            SampleNoise(0, 2, torch.device("cpu")),
            PosteriorOptions(),
        )
        assert all(len(level) == 1 for level in levels)
        assert levels == sorted(levels, reverse=True)
        first.append(float(levels[0]))
    assert first[0] < first[1] < first[2] <= 2.0


class Ignorant:
    """A prior whose estimate is zero whatever it sees, with an error of a known variance."""

    VARIANCE = 0.3

    def denoise_with_variance(self, x, sigma):
        return torch.zeros_like(x), torch.full(x.shape, self.VARIANCE)


def test_inflation_changes_the_gain_and_not_the_variance_believed(problem):
    """Mean and covariance of one update with a gain that is not the optimal one: Joseph's form."""
    n, inflation = SIDE**2, 4.0
    basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, SIDE, SIDE)
    a = problem.operator.forward(basis).reshape(n, -1).T.to(torch.complex128)
    believed = Ignorant.VARIANCE * torch.eye(n, dtype=torch.complex128)
    precision = a.mH @ a / SIGMA_N**2 + torch.linalg.inv(inflation * believed)
    gain = torch.linalg.solve(precision, a.mH) / SIGMA_N**2
    left = torch.eye(n) - gain @ a
    mean = gain @ problem.data.reshape(-1).to(torch.complex128)
    variance = (left @ believed @ left.mH + SIGMA_N**2 * gain @ gain.mH).diagonal().real
    images, _ = sample_posterior(
        problem.operator,
        problem.data,
        torch.tensor([SIGMA_N]),
        Ignorant(),
        SampleNoise(0, SAMPLES, torch.device("cpu")),
        PosteriorOptions(steps=1, inflation=inflation, tolerance=1e-4, balanced=False),
    )
    images = images.reshape(SAMPLES, n).to(torch.complex128)
    error = (images.mean(0) - mean).abs().square() / (2 * variance / SAMPLES)
    assert error.mean() == pytest.approx(1, abs=0.15)
    found = (images - images.mean(0)).abs().square().sum(0) / (SAMPLES - 1) / 2
    assert (found / variance).mean() == pytest.approx(1, abs=0.03)


def test_a_region_no_coil_sees_is_zero(problem):
    maps = problem.operator.maps.clone()
    maps[..., :5] = 0
    operator = SenseOperator(maps, problem.operator.mask[:, 0, 0])
    images, _ = sample_posterior(
        operator,
        problem.data,
        torch.tensor([SIGMA_N]),
        problem.prior,
        SampleNoise(0, 2, torch.device("cpu")),
        PosteriorOptions(),
    )
    assert float(images[..., :5].abs().max()) < 1e-4
    assert float(images[..., 5:].abs().mean()) > 0.05


@pytest.mark.parametrize(("steps", "samples"), [(10, 8), (20, 16)])
def test_balanced_samples_of_a_gaussian_have_its_mean_and_its_sd(problem, steps, samples):
    """Though they have their first levels in common; in the widest directions too."""
    ratios, along = [], []
    for seed in range(12):
        images, _ = sample_posterior(
            problem.operator,
            problem.data,
            torch.tensor([SIGMA_N]),
            problem.prior,
            SampleNoise(seed, samples, torch.device("cpu")),
            PosteriorOptions(steps=steps),
        )
        images = images.reshape(samples, -1)
        error = (images.mean(0) - problem.mean).abs() / (problem.sd * 2**0.5)
        # independent samples would be off by samples^(-1/2), 0.35 and 0.25
        assert error.square().mean().sqrt() < 0.05
        less = samples / effective_samples(samples, True)
        sd = images.numpy().std(0, ddof=less) / 2**0.5
        ratios.append((sd / problem.sd.numpy()) ** 2)
        wide = (problem.widest.mH @ images.T.to(torch.complex128)).numpy()
        along.append(wide.var(1, ddof=less) / 2 / problem.widths.numpy())
    assert np.sqrt(np.mean(ratios)) == pytest.approx(1, abs=0.02)
    # 20 directions of 12 runs: chance has an sd of .012
    assert np.sqrt(np.mean(along)) == pytest.approx(1, abs=0.035)


@pytest.mark.parametrize(("samples", "most"), [(2, 1.25), (4, 1.12)])
def test_fewer_than_eight_are_not_too_narrow(problem, samples, most):
    """Of different families, whose numbers are opposite, they are wider if anything."""
    ratios = []
    for seed in range(12):
        noise = SampleNoise(seed, samples, torch.device("cpu"))
        sigma = torch.tensor([SIGMA_N])
        images, _ = sample_posterior(
            problem.operator, problem.data, sigma, problem.prior, noise, PosteriorOptions()
        )
        less = samples / effective_samples(samples, True)
        sd = images.reshape(samples, -1).numpy().std(0, ddof=less) / 2**0.5
        ratios.append((sd / problem.sd.numpy()) ** 2)
    assert 0.97 < np.sqrt(np.mean(ratios)) < most


def test_no_pixel_is_taken_for_certain():
    """Each has its share of the mean error variance, which stays the same; an even one too."""
    generator = torch.Generator().manual_seed(4)
    support = torch.rand(2, 1, 1, 12, 10, generator=generator) > 0.3
    variance = torch.rand(2, 3, 1, 12, 10, generator=generator) ** 8
    found = regularize_variance(variance, support)
    where = support.expand_as(variance)
    means = [
        torch.where(where, each, 0).sum((2, 3, 4)) / where.sum((2, 3, 4))
        for each in (variance, found)
    ]
    torch.testing.assert_close(means[0], means[1])
    least = MEAN_SHARE * means[0].view(2, 3, 1, 1, 1)
    assert bool((found >= 0.999 * least)[where].all())
    assert not found[~where].any()
    # the order of pixels stays
    torch.testing.assert_close(found, torch.where(where, least + (1 - MEAN_SHARE) * variance, 0))
    even = torch.where(support, 0.3, 0.0).expand(2, 3, 1, 12, 10)
    torch.testing.assert_close(regularize_variance(even, support), even)
