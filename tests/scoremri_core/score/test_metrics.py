import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image
from scoremri_core.score.metrics import (
    coverage,
    crps,
    head_mask,
    psnr,
    reference_noise_variance,
    sd_to_error,
    ssim,
)


def complex_normal(rng, shape, variance):
    """Complex noise with E|e|^2 = variance."""
    return np.sqrt(variance / 2) * (rng.normal(size=(*shape, 2)) @ [1, 1j])


def disc(n=64):
    y, x = np.mgrid[:n, :n] - n // 2
    return np.where(np.hypot(y, x) < n / 3, 2 + np.cos(y / 4) * np.sin(x / 5), 0)


def test_psnr_and_ssim_are_those_of_the_magnitudes():
    rng = np.random.default_rng(0)
    truth = disc() * np.exp(1j * rng.normal(size=(64, 64)))
    image = truth + complex_normal(rng, (64, 64), 0.02)
    peak = np.abs(truth).max()
    assert psnr(image, truth) == pytest.approx(
        peak_signal_noise_ratio(np.abs(truth), np.abs(image), data_range=peak)
    )
    assert ssim(image, truth) == pytest.approx(
        structural_similarity(np.abs(truth), np.abs(image), data_range=peak)
    )
    assert psnr(truth, truth) == float("inf")
    assert ssim(truth, truth) == pytest.approx(1)
    assert psnr(np.zeros(4), np.array([1.0, 2, 0, 0])) == pytest.approx(10 * np.log10(4 / 1.25))


def test_masked_metrics_do_not_see_the_background():
    truth = disc()
    outside = ~head_mask(truth)
    assert 0.5 < outside.mean() < 0.7
    image = truth + 0.5 * outside
    assert psnr(image, truth) < 20
    assert psnr(image, truth, masked=True) == float("inf")
    assert ssim(image, truth, masked=True) == pytest.approx(1)


def test_images_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="shape"):
        psnr(np.ones((3, 4)), np.ones((4, 3)))


def test_reference_noise_variance_is_that_of_the_combined_noise():
    rng = np.random.default_rng(1)
    root = np.array([[1, 0, 0], [0.5j, 1, 0], [0.2, 0.1, 0.7]])
    maps = complex_normal(rng, (3, 4, 5), 1)
    white = complex_normal(rng, (20000, 3, 4 * 5), 1)
    noise = to_image((root @ white).reshape(-1, 3, 4, 5))
    combined = np.sum(maps.conj() * noise, axis=1) / np.sum(np.abs(maps) ** 2, axis=0)
    np.testing.assert_allclose(
        reference_noise_variance(root @ root.conj().T, maps),
        np.mean(np.abs(combined) ** 2, axis=0),
        rtol=0.06,
    )


@pytest.mark.parametrize("count", [2, 8, 40])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_ratio_tells_how_much_too_narrow_samples_are(count, width):
    """Truth and samples drawn about one mean, the samples with `width` times the spread."""
    rng = np.random.default_rng(2)
    centre = 50 * np.exp(1j * rng.normal(size=(96, 96)))
    truth = centre + complex_normal(rng, (96, 96), 1)
    samples = centre + width * complex_normal(rng, (count, 96, 96), 1)
    reference = truth + complex_normal(rng, (96, 96), 0.4)
    mean, sd = samples.mean(0), samples.std(0, ddof=1)
    # The samples' spread also enters the error of their mean.
    expected = width * np.sqrt((1 + 1 / count) / (1 + width**2 / count))
    assert sd_to_error(sd, count, mean, reference, 0.4) == pytest.approx(expected, rel=0.03)
    magnitudes = np.abs(samples)
    assert sd_to_error(
        magnitudes.std(0, ddof=1), count, magnitudes.mean(0), reference, 0.4, magnitude=True
    ) == pytest.approx(expected, rel=0.04)


def test_ratio_is_infinite_where_all_error_is_the_reference_noise():
    ones = np.ones((4, 4))
    assert sd_to_error(ones, 8, ones, 1.1 * ones, 1.0) == float("inf")


def covered(samples, reference, level=0.9, effective=None, noise=0.0):
    count = len(samples)
    effective = effective or count
    sd = np.abs(samples).std(0, ddof=count / effective)
    return coverage(sd, count, effective, samples.mean(0), reference, noise, level)


@pytest.mark.parametrize("count", [2, 4, 8, 23])
@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_coverage_of_honest_and_of_narrow_samples(count, noise):
    """Also where the reference has noise of known variance."""
    rng = np.random.default_rng(3)
    centre = 60 * np.exp(1j * rng.normal(size=(128, 128)))
    samples = centre + complex_normal(rng, (count, 128, 128), 1)
    reference = centre + complex_normal(rng, (128, 128), 1 + noise)
    # Welch-Satterthwaite is an approximation
    tolerance = 0.01 if noise == 0 else 0.025
    assert covered(samples, reference, 0.9, None, noise) == pytest.approx(0.9, abs=tolerance)
    assert covered(samples, reference, 0.5, None, noise) == pytest.approx(0.5, abs=2 * tolerance)
    narrow = centre + 0.4 * (samples - centre)
    assert covered(narrow, reference, 0.9) < 0.81


def test_coverage_of_an_unknown_width_is_unknown():
    ones = np.ones((4, 4))
    assert np.isnan(coverage(ones, 8, 8, ones, ones, np.nan))


def test_balanced_samples_are_scored_as_what_they_stand_for():
    """Eight normal numbers whose sum is zero: their mean is exact, and they lie further apart."""
    rng = np.random.default_rng(3)
    truth = 10 + rng.normal(size=(100, 100))
    drawn = rng.normal(size=(8, 100, 100))
    samples = 10 + (drawn - drawn.mean(0)) * np.sqrt(8 / 7)
    assert covered(samples, truth, 0.9, np.inf) == pytest.approx(0.9, abs=0.015)
    assert crps(samples, truth, np.inf) == pytest.approx(1 / np.sqrt(np.pi), rel=0.03)


def test_crps_of_a_normal_is_the_closed_form():
    """CRPS of N(0, 1) against a truth from it has mean 1 / sqrt(pi) (Gneiting & Raftery)."""
    rng = np.random.default_rng(4)
    truth = 100 + rng.normal(size=(128, 128))
    samples = 100 + rng.normal(size=(6, 128, 128))
    assert crps(samples, truth) == pytest.approx(1 / np.sqrt(np.pi), rel=0.02)
    assert crps(100 + 0.3 * (samples - 100), truth) > crps(samples, truth)
