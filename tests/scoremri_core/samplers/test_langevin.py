"""Langevin samplers against the closed-form posterior of a Gaussian prior."""

import math

import numpy as np
import pytest
import sigpy.mri
import torch

from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.samplers.annealing import geometric
from scoremri_core.samplers.langevin import LangevinOptions, sample_langevin
from scoremri_core.samplers.pula import PulaOptions, sample_pula
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.studies.validate.closed_form import ClosedForm

SIDE, COILS, SIGMA_N, SAMPLES = 12, 4, 0.1, 100
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prior():
    k = torch.arange(SIDE) - SIDE // 2
    spectrum = 1 / (1.0 + k[:, None] ** 2 + k**2)
    return GaussianPrior(0.1 * spectrum / spectrum.mean())


@pytest.fixture(scope="module")
def operator():
    """R = 3 with 4 calibration lines."""
    maps = sigpy.mri.birdcage_maps((COILS, SIDE, SIDE))
    maps = maps / np.sqrt((np.abs(maps) ** 2).sum(0))
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[::3] = mask[4:8] = True
    return SenseOperator(torch.from_numpy(maps.astype(np.complex64))[None, None], mask[None])


@pytest.fixture(scope="module")
def data(prior, operator):
    generator = torch.Generator().manual_seed(1)
    truth = prior.sample(1, generator)[None, :, None]
    e = torch.view_as_complex(torch.randn(1, COILS, SIDE, SIDE, 2, generator=generator))
    return operator.forward(truth)[:, 0] + SIGMA_N * operator.mask[:, 0] * e


def draws(draw, operator, data, prior, options, samples=SAMPLES):
    frames = len(data)
    images, evaluations = draw(
        operator,
        data,
        torch.full((frames,), SIGMA_N),
        prior,
        SampleNoise(0, samples, CPU),
        options,
    )
    assert images.shape == (frames, samples, 1, SIDE, SIDE)
    return images, evaluations


def bias_and_ratio(images, posterior):
    """Error of the mean beyond Monte Carlo's over the exact sd, and the ratio of the sds."""
    images = images.reshape(len(images[0]), -1).to(torch.complex128)
    exact = posterior.sd()[0]
    sd = (torch.view_as_real(images).var(0).mean(-1)).sqrt()
    error = ((images.mean(0) - posterior.mean()[0]).abs() / exact).square().mean() / 2
    return math.sqrt(max(0, float(error) - 1 / len(images))), float((sd / exact).mean())


def test_the_papers_langevin_converges_to_the_posterior(prior, operator, data):
    posterior = ClosedForm(prior, operator, SIGMA_N).given(data)
    biases = []
    for steps in (10, 300):
        options = LangevinOptions(steps=steps, sigma_min=0.02)
        images, evaluations = draws(sample_langevin, operator, data, prior, options)
        assert evaluations == len(options.schedule()) > 3 * steps
        bias, ratio = bias_and_ratio(images, posterior)
        biases.append(bias)
    assert biases[0] > 0.2  # far from converged with few evaluations
    assert biases[1] < 0.05
    assert abs(ratio - 1) < 0.05


@pytest.mark.parametrize(("steps", "step_size"), [(40, 1.0), (60, 0.5)])
def test_pula_converges_to_the_posterior(prior, operator, data, steps, step_size):
    posterior = ClosedForm(prior, operator, SIGMA_N).given(data)
    options = PulaOptions(steps=steps, step_size=step_size)
    images, evaluations = draws(sample_pula, operator, data, prior, options)
    assert evaluations == 2 * steps
    bias, ratio = bias_and_ratio(images, posterior)
    assert bias < 0.05
    assert abs(ratio - 1) < 0.03


def test_pula_without_annealing_samples_the_smoothed_posterior(prior, operator, data):
    """At one noise level the target is known: the prior's spectrum plus sigma^2."""
    options = PulaOptions(steps=1, inner_steps=150, sigma_min=0.3)
    images, evaluations = draws(sample_pula, operator, data, prior, options, samples=400)
    assert evaluations == 150
    smoothed = GaussianPrior(prior.spectrum + 0.3**2)
    bias, ratio = bias_and_ratio(images, ClosedForm(smoothed, operator, SIGMA_N).given(data))
    assert bias < 0.03
    assert abs(ratio - 1) < 0.02


def test_averaged_noise_has_no_excess_variance(prior, operator, data):
    """At one level, as above: what is noise beyond sigma, a network would take for image."""
    smoothed = ClosedForm(GaussianPrior(prior.spectrum + 0.3**2), operator, SIGMA_N).given(data)
    ratios = []
    for averaged in (True, False):
        options = LangevinOptions(
            steps=1, inner_steps=300, sigma_max=0.3, sigma_min=0.3, averaged=averaged
        )
        images, _ = draws(sample_langevin, operator, data, prior, options)
        ratios.append(bias_and_ratio(images, smoothed)[1])
    assert abs(ratios[0] - 1) < 0.02
    assert ratios[1] > 1.04


def test_the_published_update_is_not_the_posterior(prior, operator, data):
    """Its data term is blind to the noise of the data: the same samples whatever it is."""
    options = LangevinOptions(update="published", steps=50, mse=1.0)
    images, _ = draws(sample_langevin, operator, data, prior, options, samples=4)
    others, _ = sample_langevin(
        operator, data, torch.tensor([10 * SIGMA_N]), prior, SampleNoise(0, 4, CPU), options
    )
    torch.testing.assert_close(images, others, rtol=0, atol=0)


def test_the_published_update_is_written_as_published(prior, operator, data):
    """One step of it, sample by sample, in the words of the published code."""
    options = LangevinOptions(
        update="published", steps=1, inner_steps=1, sigma_max=0.2, sigma_min=0.2, step_lr=0.01
    )
    images, _ = draws(sample_langevin, operator, data, prior, options, samples=3)
    noise = SampleNoise(0, 3, CPU)
    start, z = (noise.complex_normal(1, SIDE, SIDE) for _ in range(2))
    for i in range(3):
        x = 0.2 * start[:, i : i + 1]
        p_grad = (prior.denoise(x[:, 0, 0], torch.tensor([0.2]))[:, None, None] - x) / 0.2**2
        meas_grad = operator.adjoint(operator.forward(x) - data[:, None])
        meas_grad = meas_grad / torch.linalg.vector_norm(meas_grad)
        meas_grad = meas_grad * torch.linalg.vector_norm(p_grad) * 5.0
        x = x + 0.01 * (p_grad - meas_grad) + math.sqrt(0.02) * z[:, i : i + 1]
        torch.testing.assert_close(images[:, i : i + 1], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("draw", "options"),
    [
        (sample_langevin, LangevinOptions(steps=10)),
        (sample_langevin, LangevinOptions(steps=10, update="published", mse=1.0)),
        (sample_pula, PulaOptions(steps=5)),
    ],
)
def test_a_sample_is_the_same_alone_and_in_company(prior, operator, data, draw, options):
    other = SenseOperator(operator.maps, ~operator.mask[:, 0, 0])
    both = SenseOperator(
        torch.cat([other.maps, operator.maps]), torch.cat([other.mask, operator.mask])[:, 0, 0]
    )
    alone, _ = draws(draw, operator, data, prior, options, samples=2)
    company, _ = draws(draw, both, torch.cat([data + 1, data]), prior, options, samples=5)
    torch.testing.assert_close(company[1:, :2], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", [sample_langevin, sample_pula])
def test_a_region_no_coil_sees_is_zero(prior, operator, data, draw):
    maps = operator.maps.clone()
    maps[..., :4] = 0
    blind = SenseOperator(maps, operator.mask[:, 0, 0])
    options = {sample_langevin: LangevinOptions, sample_pula: PulaOptions}[draw](steps=20)
    images, _ = draws(draw, blind, data, prior, options, samples=2)
    assert float(images[..., :4].abs().max()) == 0
    assert float(images[..., 4:].abs().mean()) > 0.05


@pytest.mark.parametrize(
    ("sampler", "options", "evaluations"),
    [("langevin", {"update": "published"}, 7), ("pula", {"inner_steps": 1}, 2)],
)
def test_the_front_door_knows_them(prior, operator, data, sampler, options, evaluations):
    result = reconstruct(
        data[0].numpy(),
        maps=operator.maps[0, 0].numpy(),
        noise_covariance=2 * SIGMA_N**2 * np.eye(COILS),
        prior=prior,
        sampler=sampler,
        samples=2,
        steps=2,
        **options,
    )
    assert (result.info.sampler, result.info.steps) == (sampler, 2)
    assert result.info.evaluations == evaluations
    # two noise levels may end far from the data: then a classical image comes, marked
    assert np.isfinite(result.mean).all()
    assert result.info.reason is not None or np.isfinite(result.samples).all()


def test_schedule_is_geometric():
    levels = geometric(2.0, 0.02, 5)
    assert levels[0] == 2.0
    assert levels[-1] == 0.02
    np.testing.assert_allclose(np.diff(np.log(levels)), np.log(0.01) / 4)
    assert geometric(2.0, 0.02, 1) == [0.02]


def test_the_steps_are_those_of_the_authors_brain_runs():
    """Levels 1156 to 2310 of 2,311, with 3 steps at each up to level 1800 and 4 after that."""
    theirs = np.geomspace(232, 0.0066, 2311)
    levels = np.array(LangevinOptions().schedule())
    assert len(levels) == 3975
    for first, number in ((1156, 0), (1800, 3 * 644), (1801, 3 * 645), (2310, 3974)):
        assert levels[number] == pytest.approx(theirs[first], rel=0.003)
    assert levels[3 * 645 - 1] > levels[3 * 645] == levels[3 * 645 + 3] > levels[3 * 645 + 4]
    plain = LangevinOptions(steps=7, inner_steps=2, late_sigma=0)
    assert len(plain.schedule()) == 14


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (LangevinOptions, "update", "other"),
        (LangevinOptions, "step_size", 2.5),
        (LangevinOptions, "inner_steps", 0),
        (LangevinOptions, "step_lr", -1.0),
        (PulaOptions, "step_size", 0.0),
        (PulaOptions, "inner_steps", 0),
    ],
)
def test_a_bad_option_is_named(options, field, value):
    with pytest.raises(InputError, match=field):
        options(**{field: value})


def test_noise_levels_that_rise_are_refused(prior, operator, data):
    with pytest.raises(InputError, match="sigma_min <= sigma_max"):
        draws(sample_pula, operator, data, prior, PulaOptions(sigma_max=0.001))
