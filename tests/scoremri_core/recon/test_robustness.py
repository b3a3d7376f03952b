"""Robustness of the shipped prior to model errors, on a measured brain.

Uses the central 128 x 128 samples of k-space, for speed.
"""

import ismrmrd
import numpy as np
import pytest
from scipy.ndimage import binary_closing, binary_fill_holes

from scoremri_core import load_prior, reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.classical import best_classical, cg_sense, l1_wavelet, mvue
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges
from scoremri_core.scans.flags import flag_bits
from scoremri_core.score.metrics import psnr, reference_noise_variance, sd_to_error
from scoremri_core.simulation.masks import make_mask
from scoremri_core.simulation.simulation import SimulatedScan

N = 128
MASK = make_mask("equispaced", (N,), 4, 24)
LAMBDAS = (0.003, 0.01, 0.03)
MARGIN = 0.5  # dB below L1-wavelet with the best lambda


@pytest.fixture(scope="module")
def prior():
    return load_prior("default")


@pytest.fixture(scope="module")
def full(brain_256):
    """Fully sampled k-space (coil, y, x)."""
    middle = slice(brain_256.shape[1] // 2 - N // 2, brain_256.shape[1] // 2 + N // 2)
    return brain_256[:, middle, middle]


def undersampled(kspace):
    return (kspace * MASK.sampled[:, None]).astype(np.complex64)


def calibration_maps(kspace):
    """Coil maps of the calibration lines, which the reference uses."""
    return estimate_coil_maps((kspace * MASK.calibration[:, None]).astype(np.complex64))[0]


def reference_of(kspace):
    return mvue(kspace, calibration_maps(kspace))


def best_of_l1_wavelet(kspace, maps, *references):
    images = [l1_wavelet(kspace, maps, lam) for lam in LAMBDAS]
    return nearest(images, references)


def nearest(images, references):
    return max(psnr(image, reference) for image in images for reference in references)


def sampled(kspace, prior, **options):
    return reconstruct(kspace, prior=prior, samples=2, device="cpu", **options)


def test_masked_background_is_detected(full, prior):
    """The edges of k-space underestimate the noise, which would cost 10 dB."""
    coils = to_image(full)
    signal = np.linalg.norm(coils, axis=0)
    bright = signal > 0.1 * np.percentile(signal, 99)
    head = binary_fill_holes(binary_closing(bright, iterations=2))
    masked = to_kspace(coils * head)
    reference = reference_of(masked)
    data = undersampled(masked)
    result = sampled(data, prior)
    baseline = best_of_l1_wavelet(data, estimate_coil_maps(data)[0], reference)
    assert psnr(result.mean[0], reference) > baseline - MARGIN
    assert result.info.misfit[0] > 4
    assert result.info.sigma_n[0] > 2 * result.info.sigma_thermal[0]


def test_vendor_filter_does_not_degrade_the_image(full, prior):
    """The square root of a Hann window removes the noise at the edges of k-space."""
    window = np.sqrt(np.hanning(N + 2)[1:-1])
    filtered = full * window[:, None] * window
    reference = reference_of(filtered)
    data = undersampled(filtered)
    result = sampled(data, prior)
    baseline = best_of_l1_wavelet(data, estimate_coil_maps(data)[0], reference)
    assert psnr(result.mean[0], reference) > baseline - MARGIN


@pytest.fixture(scope="module")
def with_true_noise(full, prior):
    """PSNR and sigma_n with the true noise covariance, and the covariance."""
    covariance = covariance_from_edges(full)
    result = sampled(undersampled(full), prior, noise_covariance=covariance)
    return psnr(result.mean[0], reference_of(full)), result.info.sigma_n[0], covariance


@pytest.mark.parametrize("factor", [10, 100])
def test_noise_covariance_that_is_too_small_is_raised_and_logged(
    full, prior, with_true_noise, factor, caplog
):
    expected, sigma_n, covariance = with_true_noise
    result = sampled(undersampled(full), prior, noise_covariance=covariance / factor)
    assert psnr(result.mean[0], reference_of(full)) > expected - 1
    assert result.info.misfit[0] > 0.5 * factor
    assert result.info.sigma_n[0] == pytest.approx(sigma_n, rel=0.3)
    assert "noise_covariance has sd" in caplog.text


@pytest.mark.parametrize("axis", [0, 1])
def test_motion_after_the_calibration_lines(full, prior, axis):
    """Shift by two pixels along y or x; either position is accepted as the truth.

    If inconsistent lines are reported, the image must not be worse than the classical one.
    """
    shift = np.exp(-2j * np.pi * 2 * (np.arange(N) - N // 2) / N)
    moved = full * (shift[:, None] if axis == 0 else shift)
    data = undersampled(np.where(MASK.calibration[:, None], full, moved))
    result = sampled(data, prior)
    references = [reference_of(full), reference_of(moved)]
    if result.info.inconsistency is not None:
        baseline = nearest([best_classical(data, result.maps[0], None)], references)
    else:
        baseline = best_of_l1_wavelet(data, estimate_coil_maps(data)[0], *references)
    assert nearest([result.mean[0]], references) > baseline - MARGIN


def test_motion_after_a_separate_calibration_scan(full, prior):
    shift = np.exp(-2j * np.pi * 2 * (np.arange(N) - N // 2) / N)
    moved = full * shift[:, None]
    result = sampled(
        undersampled(moved), prior, calibration=full * MASK.calibration[:, None].astype(np.float32)
    )
    maps = result.maps[0, 0]
    reference = mvue(moved, maps)
    baseline = best_of_l1_wavelet(undersampled(moved), maps, reference)
    assert psnr(result.mean[0], reference) > baseline - MARGIN
    assert result.info.misfit[0] > 2
    ratio = sd_to_error(result.std[0], result.info.effective_samples, result.mean[0], reference)
    assert ratio > 0.7


def test_errors_of_5_percent_in_half_of_the_coil_maps(full, prior):
    maps = calibration_maps(full)
    reference = mvue(full, maps)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, len(maps), N, N))
    k = np.arange(N) - N // 2
    smooth = np.exp(-(k[:, None] ** 2 + k**2) / (2 * 4**2))  # up to 4 periods over the image
    errors = to_image(to_kspace(noise[0] + 1j * noise[1]) * smooth)
    errors *= 0.05 / np.sqrt(np.mean(np.abs(errors) ** 2))
    wrong = maps.copy()
    wrong[::2] *= 1 + errors[::2]
    data = undersampled(full)
    result = sampled(data, prior, maps=wrong)
    assert psnr(result.mean[0], reference) > best_of_l1_wavelet(data, wrong, reference) - MARGIN
    ratio = sd_to_error(
        result.std[0],
        result.info.effective_samples,
        result.mean[0],
        reference,
        reference_noise_variance(covariance_from_edges(full), maps),
    )
    assert ratio > 0.7


class Broken:
    """A prior that applies a function to the image."""

    name = "broken"

    def __init__(self, change):
        self.change = change

    def denoise(self, x, sigma):
        return self.change(x)


@pytest.fixture(scope="module")
def known(full):
    """K-space, coil maps, and the residual and PSNR of CG-SENSE."""
    data = undersampled(full)
    maps = calibration_maps(full)
    image = cg_sense(data, maps)
    return data, maps, residual(image, data, maps), psnr(image, mvue(full, maps))


def residual(image, data, maps):
    """Norm of the residual of the measured lines."""
    return np.linalg.norm((to_kspace(maps * image) - data)[:, MASK.sampled])


NOT_FINITE = {"nan": lambda x: x * np.nan, "infinite": lambda x: x * np.inf}


@pytest.mark.parametrize("change", NOT_FINITE.values(), ids=NOT_FINITE)
def test_prior_that_is_not_finite_falls_back(known, change):
    data, maps, _, _ = known
    result = sampled(data, Broken(change), maps=maps)
    assert "not finite" in result.info.reason
    assert np.isfinite(result.mean).all()
    assert np.isnan(result.std).all()
    assert np.isnan(result.samples).all()


def test_fallback_uses_the_initial_noise(known, full):
    """Noise that was raised for resampling would blur the classical image."""
    data, maps, _, classical = known
    result = sampled(data, Broken(NOT_FINITE["nan"]), maps=maps)
    assert psnr(result.mean[0], mvue(full, maps)) > classical - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.real, r"prior broken: denoise returned real values of shape \(2, 128, 128\)"),
        (lambda x: x[:, 1:], r"prior broken: .* shape \(2, 127, 128\): expected .*\(2, 128, 128\)"),
        (lambda x: x[:1], r"prior broken: .* shape \(1, 128, 128\)"),
    ],
    ids=["real", "smaller", "fewer"],
)
def test_wrong_output_of_a_prior_is_an_error(known, change, message):
    data, maps, _, _ = known
    with pytest.raises(InputError, match=message):
        sampled(data, Broken(change), maps=maps)


WRONG = {"1e6": lambda x: 1e6 * x, "-1e3": lambda x: -1e3 * x, "0": lambda x: 0 * x}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_mean_with_a_large_residual_is_a_fallback(known, change):
    data, maps, classical, _ = known
    result = sampled(data, Broken(change), maps=maps)
    assert np.isfinite(result.mean).all()
    if result.info.reason is None:
        assert residual(result.mean[0], data, maps) < 2 * classical


def test_aliased_object_has_two_sets_of_maps(prior):
    """As in `scoremri simulate --fov 130x180 -R 2`."""
    scan = SimulatedScan((96, 96), oversampling=1, fov=(130, 180))
    noise_scan = np.uint64(flag_bits(ismrmrd.ACQ_IS_NOISE_MEASUREMENT))
    first = int(np.sum(scan.heads()["flags"] & noise_scan > 0))
    full = np.stack([line.data for line in scan][first:], axis=1)
    mask = make_mask("equispaced", (96,), 2, 24).sampled
    data = (full * mask[:, None]).astype(np.complex64)
    # an MVUE of one set of maps is wrong where the object aliases
    reference = np.linalg.norm(to_image(full), axis=0)
    result = sampled(data, prior)
    assert result.maps.shape[1] == 2
    assert result.info.reason is None
    two = sampled(data, prior, maps=2)
    assert psnr(result.mean[0], reference) > psnr(two.mean[0], reference) - 0.5
