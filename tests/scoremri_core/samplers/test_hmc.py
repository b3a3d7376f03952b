"""Annealed Hamiltonian Monte Carlo against closed forms."""

import math

import numpy as np
import pytest
import sigpy.mri
import torch

from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.samplers.hamiltonian import inner, leapfrog, path_integral
from scoremri_core.samplers.hmc import HmcOptions, _Target, run_hmc, sample_hmc
from scoremri_core.samplers.random_numbers import SampleNoise

SIDE, COILS, SIGMA_N = 10, 2, 0.1


def spectrum(side):
    k = np.arange(side) - side // 2
    power = torch.from_numpy(1 / (1.0 + k[:, None] ** 2 + k**2)).float()
    return 0.3 * power / power.mean()


def scan(frames):
    """R = 3 with 4 calibration lines and 2 coils, of images of a 1 / f^2 prior."""
    maps = sigpy.mri.birdcage_maps((COILS, SIDE, SIDE))
    maps = torch.from_numpy((maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64))
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2::3] = mask[3:7] = True
    prior = GaussianPrior(spectrum(SIDE))
    operator = SenseOperator(maps.expand(frames, 1, *maps.shape), mask.expand(frames, SIDE, SIDE))
    generator = torch.Generator().manual_seed(1)
    truth = prior.sample(frames, generator)[:, None, None]
    e = torch.randn(frames, COILS, SIDE, SIDE, 2, generator=generator)
    data = operator.forward(truth)[:, 0] + SIGMA_N * mask * torch.view_as_complex(e)
    return prior, operator, data


def run(problem, samples, sigma_n=None, **options):
    prior, operator, data = problem
    return run_hmc(
        operator,
        data,
        torch.full((len(data),), SIGMA_N) if sigma_n is None else sigma_n,
        prior,
        SampleNoise(0, samples, torch.device("cpu")),
        HmcOptions(**options),
    )


def closed_form(problem):
    """Posterior mean (pixel,) and sd of each real component (pixel,)."""
    prior, operator, data = problem
    n = SIDE**2
    basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, SIDE, SIDE)
    a = operator.forward(basis).reshape(n, -1).T.to(torch.complex128)
    f = to_kspace(basis).reshape(n, n).T.to(torch.complex128)
    precision = a.mH @ a / SIGMA_N**2 + f.mH @ (f / prior.spectrum.reshape(n, 1).double())
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (a.mH @ data.reshape(-1).to(torch.complex128)) / SIGMA_N**2
    return mean, covariance.diagonal().real.sqrt()


def test_the_posterior_of_a_gaussian_is_reached():
    problem, samples = scan(1), 200
    mean, sd = closed_form(problem)
    result = run(problem, samples)
    images = result.samples.reshape(samples, -1)
    error = ((images.mean(0) - mean).abs() / (sd * 2**0.5)).square().mean()
    ratio = torch.view_as_real(images).var(0).mean(-1).sqrt() / sd
    assert float(error) < 1 / samples + 0.05**2  # of an sd, beyond the Monte-Carlo floor
    assert float(ratio.mean()) == pytest.approx(1, abs=0.03)
    # sd of the estimate: 1 / sqrt(4 * 200) in each pixel
    assert float((ratio - 1).square().mean().sqrt()) < 0.05

    acceptance = result.acceptance.mean((1, 2))
    assert acceptance.shape == (100,)
    assert result.sigmas.shape == (100, 1)
    assert float(acceptance.min()) > 0.5
    assert float(acceptance.max()) < 0.95
    # at each of 20 + 100 temperatures the score, 8 steps and 2 points of the integral; the last
    # denoising
    assert result.evaluations == 120 * (1 + 8 + 2) + 1


def test_directions_of_which_the_data_say_little_are_reached():
    """One coil that sees half of the image 6 times as weakly: each pixel in closed form."""
    c, s, samples = 0.1, 0.02, 60
    gain = torch.ones(8, 8)
    gain[4:] = 0.03
    operator = SenseOperator((gain.sqrt() + 0j)[None, None, None], torch.ones(1, 8, 8, dtype=bool))
    prior = GaussianPrior(torch.full((8, 8), c))
    truth = prior.sample(1, torch.Generator().manual_seed(1))[:, None, None]
    data = operator.forward(truth)[:, 0]
    images = run((prior, operator, data), samples, torch.tensor([s])).samples[0, :, 0]
    precision = 1 / c + gain / s**2
    apart = (images.mean(0) - gain / s**2 / precision * truth[0, 0, 0]) * precision.sqrt()
    pixels = apart[gain < 1].abs().square() / 2  # of a component; 1 / samples if exact
    assert float(pixels.mean()) < 0.3**2
    width = torch.view_as_real(images).var(0).mean(-1) * precision
    assert float(width[gain < 1].mean().sqrt()) == pytest.approx(1, abs=0.1)
    assert float(width[gain == 1].mean().sqrt()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("sigma", [1.0, 0.1, 0.01])
def test_the_likelihood_is_tempered_by_the_noise_of_x_as_the_data_see_it(sigma):
    s, gain = 0.02, torch.linspace(0.001, 1, 1000)[None]
    operator = SenseOperator((gain.sqrt() + 0j)[None, None, None], torch.ones(1, 1, 1000) > 0)
    nothing = torch.zeros(1, 1, 1, 1, 1000) + 0j
    target = _Target(operator, nothing, torch.tensor([s]), GaussianPrior(torch.ones(1, 1000)))
    target.sigma = torch.tensor([sigma])
    found = target._tempered(torch.ones_like(nothing))[0, 0, 0].real
    exact = 1 / (s**2 + sigma**2 * gain)
    ratio = found / exact
    assert 0 < float(ratio.min()) <= float(ratio.max()) < 1.4
    assert float(ratio[gain > 0.1].min()) > 0.6
    # the paper's, where a coil sees all
    assert float(found[0, -1]) == pytest.approx(1 / (s**2 + sigma**2), rel=1e-4)


def test_samples_as_they_are_keep_the_last_noise():
    """Along directions that are not measured: c + s^2 against c^2 / (c + s^2)."""
    n, samples = 16, 40
    prior = GaussianPrior(torch.full((n, n), 0.04))
    operator = SenseOperator(
        torch.ones(1, 1, 1, n, n, dtype=torch.complex64), torch.zeros(1, n, n, dtype=torch.bool)
    )
    problem = prior, operator, torch.zeros(1, 1, n, n, dtype=torch.complex64)
    options = {"steps": 20, "sigma_min": 0.1, "trajectories": 4}
    noisy = run(problem, samples, denoise=False, **options)
    denoised = run(problem, samples, **options)
    assert denoised.evaluations == noisy.evaluations + 1
    for result, variance in ((noisy, 0.04 + 0.01), (denoised, 0.04**2 / (0.04 + 0.01))):
        assert float(torch.view_as_real(result.samples).var()) == pytest.approx(variance, rel=0.05)


def test_a_sample_is_the_same_alone_and_in_company():
    prior, operator, data = scan(3)
    options = {"steps": 30, "leapfrog": 3}
    sigma_n = torch.tensor([0.1, 0.02, 0.3])
    together = run((prior, operator, data), 4, sigma_n, **options)
    assert 0 < float(together.acceptance.mean()) < 1
    for i in range(3):
        alone = SenseOperator(operator.maps[i : i + 1], operator.mask[i : i + 1, 0, 0])
        one = run((prior, alone, data[i : i + 1]), 2, sigma_n[i : i + 1], **options)
        torch.testing.assert_close(one.samples[0], together.samples[i, :2], rtol=0, atol=0)
        torch.testing.assert_close(one.sigmas[:, 0], together.sigmas[:, i], rtol=0, atol=0)
        torch.testing.assert_close(one.step_sizes[:, 0], together.step_sizes[:, i, :2])


def test_the_wrapper_returns_samples_and_evaluations():
    prior, operator, data = scan(1)
    options = HmcOptions(steps=2, leapfrog=2, tuning=0)
    images, evaluations = sample_hmc(
        operator,
        data,
        torch.tensor([SIGMA_N]),
        prior,
        SampleNoise(0, 2, torch.device("cpu")),
        options,
    )
    expected = run((prior, operator, data), 2, steps=2, leapfrog=2, tuning=0)
    torch.testing.assert_close(images, expected.samples, rtol=0, atol=0)
    assert evaluations == expected.evaluations == 2 * (1 + 2 + 2) + 1


def test_a_region_no_coil_sees_is_zero():
    prior, operator, data = scan(1)
    maps = operator.maps.clone()
    maps[..., :3] = 0
    seen = SenseOperator(maps, operator.mask[:, 0, 0])
    images = run((prior, seen, data), 2, steps=10, leapfrog=3).samples
    assert float(images[..., :3].abs().max()) == 0
    assert float(images[..., 3:].abs().mean()) > 0.05


def test_a_step_far_too_large_is_turned_down():
    result = run(scan(1), 2, steps=3, step_size=1e6, target_acceptance=0.0, leapfrog=20)
    assert float(result.acceptance.max()) == 0
    assert bool(torch.isfinite(torch.view_as_real(result.samples)).all())


@pytest.mark.parametrize(
    ("power", "measured", "variance"), [(0.04, False, 0.04 + 0.01), (1e4, True, 0.04 + 0.01)]
)
def test_what_is_turned_down_still_has_the_noise_of_its_level(power, measured, variance):
    """Known to the prior alone, c + sigma^2; known to the data alone, s^2 + sigma^2."""
    n = 16
    operator = SenseOperator(
        torch.ones(1, 1, 1, n, n, dtype=torch.complex64), torch.full((1, n, n), measured)
    )
    problem = GaussianPrior(torch.full((n, n), power)), operator, torch.zeros(1, 1, n, n) + 0j
    options = {"step_size": 1e6, "target_acceptance": 0.0, "sigma_min": 0.1, "denoise": False}
    result = run(problem, 40, torch.tensor([0.2]), leapfrog=1, **options)
    assert float(result.acceptance.max()) == 0
    assert float(torch.view_as_real(result.samples).var()) == pytest.approx(variance, rel=0.05)


def test_single_coil_is_a_scan_of_one_coil():
    """Maps of ones: each frequency on its own, in closed form."""
    side, samples, sigma_n = 8, 150, 0.1
    power = spectrum(side)
    prior = GaussianPrior(power)
    rng = np.random.default_rng(0)
    measured = np.zeros((side, side), bool)
    measured[::2] = measured[3:6] = True
    truth = to_kspace(prior.sample(1, torch.Generator().manual_seed(3))).numpy()
    noise = rng.standard_normal((2, 1, side, side))
    kspace = (truth + sigma_n * (noise[0] + 1j * noise[1])) * measured
    result = reconstruct(
        kspace,
        noise_covariance=[[2 * sigma_n**2]],
        prior=prior,
        sampler="hmc",
        samples=samples,
        maps=np.ones((1, side, side), np.complex64),
        scale=1.0,
        device="cpu",
    )
    assert (result.info.sampler, result.info.steps, result.info.evaluations) == ("hmc", 100, 1321)
    c = power.numpy()
    gain = np.where(measured, c / (c + sigma_n**2), 0)
    sd = np.sqrt(np.where(measured, gain * sigma_n**2, c))
    error = np.abs(to_kspace(result.mean[0]) - gain * kspace[0]) / sd
    assert np.mean(error**2) / 2 < 1 / samples + 0.05**2
    deviations = to_kspace(result.samples[0]) - to_kspace(result.mean[0])
    ratio = np.sqrt(np.mean(np.abs(deviations) ** 2, 0) / 2) / sd
    assert ratio[measured].mean() == pytest.approx(1, abs=0.03)
    assert ratio[~measured].mean() == pytest.approx(1, abs=0.03)


@pytest.fixture
def gaussian():
    """Log density, up to a constant, and the gradients of a Gaussian, in double precision."""
    power = spectrum(SIDE).double()

    def log_density(x):
        return -(to_kspace(x).abs().square() / power).sum((-3, -2, -1)) / 2

    def gradients(x):
        g = -to_image(to_kspace(x) / power)
        return g, g

    generator = torch.Generator().manual_seed(0)
    x, p = torch.view_as_complex(
        torch.randn(2, 2, 3, 1, SIDE, SIDE, 2, dtype=torch.float64, generator=generator)
    )
    return log_density, gradients, x, p


def test_leapfrog_runs_backwards_to_where_it_came_from(gaussian):
    _, gradients, x, p = gaussian
    step = torch.tensor(0.1, dtype=torch.float64)
    end, last, score, gradient = leapfrog(gradients, x, p, gradients(x)[1], step, 25)
    torch.testing.assert_close(gradient, gradients(end)[1])
    torch.testing.assert_close(score, gradients(end)[0])
    start, first, *_ = leapfrog(gradients, end, -last, gradient, step, 25)
    torch.testing.assert_close(start, x)
    torch.testing.assert_close(first, -p)


def test_leapfrog_conserves_energy_to_second_order(gaussian):
    log_density, gradients, x, p = gaussian

    def drift(step, count):
        end, last, *_ = leapfrog(
            gradients, x, p, gradients(x)[1], torch.tensor(step, dtype=torch.float64), count
        )
        before = -log_density(x) + inner(p, p) / 2
        return ((-log_density(end) + inner(last, last) / 2 - before) / before).abs().mean()

    coarse, fine = drift(0.1, 10), drift(0.05, 20)
    assert float(coarse) < 0.02
    assert float(coarse / fine) == pytest.approx(4, rel=0.2)


def test_path_integral_is_the_difference_of_the_log_density(gaussian):
    log_density, gradients, x, y = gaussian
    found = path_integral(lambda x: gradients(x)[0], x, y, gradients(x)[0], gradients(y)[0])
    torch.testing.assert_close(found, log_density(y) - log_density(x))


def test_path_integral_is_exact_for_a_cubic_score_and_costs_two_evaluations():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.view_as_complex(
        torch.randn(2, 2, 3, 1, 4, 4, 2, dtype=torch.float64, generator=generator)
    )
    calls = []

    def score(x):
        calls.append(x)
        return -x * x.abs().square()  # of log p = -|x|^4 / 4

    found = path_integral(score, x, y, -x * x.abs().square(), -y * y.abs().square())
    expected = (x.abs() ** 4 - y.abs() ** 4).sum((-3, -2, -1)) / 4
    torch.testing.assert_close(found, expected)
    assert len(calls) == 2


def test_the_schedule_is_geometric_and_starts_with_the_tuning():
    options = HmcOptions(steps=5, sigma_max=2.0, sigma_min=0.02, tuning=3)
    levels = options.temperatures(0.1)
    assert levels[3] == 2.0
    assert levels[-1] == pytest.approx(0.02)
    np.testing.assert_allclose(np.diff(np.log(levels[3:])), math.log(0.01) / 4)
    np.testing.assert_allclose(np.diff(np.log(levels[:4])), math.log(0.95))
    assert HmcOptions(steps=1, tuning=0).temperatures(0.1) == [1.0]


@pytest.mark.parametrize(("sigma_n", "last"), [(0.001, 0.003), (0.02, 0.005), (0.2, 0.01)])
def test_the_last_level_follows_the_noise(sigma_n, last):
    assert HmcOptions().temperatures(sigma_n)[-1] == pytest.approx(last)


@pytest.mark.parametrize(
    "options",
    [{"sigma_min": 2.0}, {"sigma_min": 0.0}, {"leapfrog": 0}, {"target_acceptance": 1.0}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        HmcOptions(**options)
