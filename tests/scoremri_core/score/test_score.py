"""One score for every command: what it says of samples whose quality is known."""

import numpy as np
import pytest
from scipy.stats import t as student_t

from scoremri_core.samplers.random_numbers import SampleNoise, effective_samples
from scoremri_core.score.score import Answer, Reference, score
from scoremri_core.studies.compare.scores import Undersampled, scored
from scoremri_core.studies.methods.problem import Problem

SHAPE = (128, 128)


def posterior(count, width=1.0, truth_noise=0.0):
    """A truth from a posterior of sd 1 in each component, and balanced samples of it."""
    import torch

    rng = np.random.default_rng(count)
    centre = 60 * np.exp(1j * rng.normal(size=SHAPE))

    def normal(*shape):
        return rng.normal(size=(*shape, 2)) @ [1, 1j]

    noise = SampleNoise(0, count, torch.device("cpu"))
    drawn = noise.complex_normal(*SHAPE, balanced=True).numpy().reshape(count, *SHAPE)
    samples = centre + width * drawn
    truth = centre + normal(*SHAPE)
    reference = truth + np.sqrt(truth_noise / 2) * normal(*SHAPE)
    answer = Answer(samples.mean(0), samples, effective_samples(count, True))
    return answer, Reference(reference, reference, truth_noise)


@pytest.mark.parametrize("count", [4, 8, 12])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_balanced_samples_of_the_posterior_are_calibrated(count, noise):
    answer, reference = posterior(count, truth_noise=noise)
    found = score(answer, reference)
    assert found.coverage_90 == pytest.approx(0.9, abs=0.01 if noise == 0 else 0.025)
    assert found.sd_to_error == pytest.approx(1, abs=0.02)
    assert found.complex_sd_to_error == pytest.approx(1, abs=0.02)
    if noise == 0:
        peak = np.abs(reference.image).max()
        assert found.crps * peak == pytest.approx(1 / np.sqrt(np.pi), rel=0.02)


def test_samples_that_are_too_narrow_are_seen():
    narrow, reference = posterior(4, width=0.8)
    plain, _ = posterior(4)
    found = score(narrow, reference)
    # the mean of 4 balanced samples strays like that of 7, by less where they are narrow
    ratio = 0.8 * np.sqrt((1 + 1 / 7) / (1 + 0.8**2 / 7))
    assert found.sd_to_error == pytest.approx(ratio, abs=0.01)
    held = 2 * student_t.cdf(ratio * student_t.ppf(0.95, 3), 3) - 1  # 85 %
    assert found.coverage_90 == pytest.approx(held, abs=0.01)
    assert found.crps > score(plain, reference).crps


def test_the_command_compare_scores_alike():
    answer, reference = posterior(4)
    kspace = np.ones((1, *SHAPE), np.complex64)
    given = Undersampled(Problem(kspace, kspace), reference.image, abs(reference.image), 1.0)
    row, found = scored(answer, given), score(answer, Reference(reference.image))
    for name in ("coverage_90", "crps", "sd_to_error"):
        assert row[name] == getattr(found, name)
    assert row["psnr"] == found.masked_psnr


def test_without_samples_images_alone_are_scored():
    answer, reference = posterior(4)
    found = score(Answer(answer.image), reference)
    assert found.psnr == score(answer, reference).psnr
    assert found.coverage_90 is found.crps is found.sd_to_error is None
    one = score(Answer(answer.image, answer.samples[:1]), reference)
    assert one.crps is None
