"""Noise covariances of scans and edges of k-space against the truth; whitening."""

import ismrmrd
import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.noise.covariance import (
    covariance_from_edges,
    covariance_from_scan,
    noise_sigma,
    whiten,
    whitening_matrix,
)
from scoremri_core.scans.files import open_scan
from scoremri_core.scans.gridding import zero_filled_kspace

COVARIANCE = np.array([[4, 1 + 1j, 0], [1 - 1j, 3, 0.5j], [0, -0.5j, 2]]) * 1e-6


def correlated_noise(shape, seed=0):
    """Noise with E[n n^H] = COVARIANCE."""
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(2, 3, *shape)) / np.sqrt(2)
    root = np.linalg.cholesky(COVARIANCE)
    return np.tensordot(root, white[0] + 1j * white[1], axes=1)


def disc_kspace(coils, ny, nx):
    """K-space of a bright disc, with signal in every corner of k-space."""
    y, x = np.mgrid[:ny, :nx]
    disc = np.hypot((y - ny // 2) / ny, (x - nx // 2) / nx) < 0.33
    image = disc * np.exp(1j * np.arange(coils))[:, None, None]
    shifted = np.fft.ifftshift(image, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def test_scan_covariance_recovers_the_truth():
    estimate = covariance_from_scan(correlated_noise((40000,)))
    assert np.abs(estimate - COVARIANCE).max() < 0.03 * 4e-6


def test_scan_covariance_scales_with_dwell_time_and_bandwidth_as_in_gadgetron():
    samples = correlated_noise((500,))
    noise_dwell, data_dwell, bandwidth = 20.0, 2.4, 0.793
    ours = whitening_matrix(covariance_from_scan(samples, noise_dwell / data_dwell, bandwidth))
    root = np.linalg.cholesky(samples @ samples.conj().T / 500)
    gadgetron = np.sqrt(2 * data_dwell / noise_dwell * bandwidth) * np.linalg.inv(root)
    # whitening matrices are unique up to a unitary factor
    np.testing.assert_allclose(
        ours.conj().T @ ours, gadgetron.conj().T @ gadgetron, rtol=1e-9, atol=1e-3
    )


@pytest.mark.parametrize("gaps", [False, True])
def test_edges_estimate_the_noise_of_one_average(gaps):
    counts = np.where(np.arange(96) % 2, 9, 1)[:, None] * np.ones(80)
    kspace = disc_kspace(3, 96, 80) * 0.01 + 20 * correlated_noise((96, 80)) / np.sqrt(counts)
    if gaps:  # no complete readouts
        kspace = kspace * (np.random.default_rng(1).uniform(size=(96, 80)) < 0.7)
    estimate = covariance_from_edges(kspace, counts)
    assert noise_sigma(estimate) == pytest.approx(20 * noise_sigma(COVARIANCE), rel=0.1)


def test_whitened_noise_has_unit_standard_deviation():
    whitening = whitening_matrix(COVARIANCE)
    np.testing.assert_allclose(
        whitening @ COVARIANCE @ whitening.conj().T, 2 * np.eye(3), atol=1e-12
    )
    noise = whiten(correlated_noise((200, 200)), whitening)
    assert noise.dtype == np.complex64
    assert noise.real.std(axis=(1, 2)) == pytest.approx(np.ones(3), rel=0.01)
    assert noise.imag.std(axis=(1, 2)) == pytest.approx(np.ones(3), rel=0.01)
    assert noise_sigma(2 * np.eye(3)) == pytest.approx(1.0)
    assert noise_sigma(COVARIANCE) == pytest.approx(np.sqrt(3e-6 / 2))


def test_whitening_keeps_leading_axes():
    noise = correlated_noise((2, 6, 5)).swapaxes(0, 1)
    whitening = whitening_matrix(COVARIANCE)
    np.testing.assert_allclose(whiten(noise, whitening)[1], whiten(noise[1], whitening), rtol=1e-5)


def test_near_singular_covariance_is_regularised():
    covariance = np.diag([1.0, 1.0, 0.0])
    whitening = whitening_matrix(covariance)
    assert np.isfinite(whitening).all()
    np.testing.assert_allclose(whitening[:2, :2], np.sqrt(2) * np.eye(2), atol=1e-12)
    assert abs(whitening[2, 2]) == pytest.approx(np.sqrt(2e6))


@pytest.mark.parametrize(
    ("covariance", "reason"),
    [
        (np.array([[1, 2], [0, 1]]), "Hermitian"),
        (np.diag([1.0, -1.0]), "positive"),
        (np.zeros((2, 2)), "positive"),
        (np.diag([1.0, np.nan]), "finite"),
        (np.ones((2, 3)), "shape"),
    ],
)
def test_invalid_covariance_is_an_error(covariance, reason):
    with pytest.raises(InputError, match=reason):
        whitening_matrix(covariance)


def test_invalid_noise_scan_is_an_error():
    with pytest.raises(InputError, match="as many samples"):
        covariance_from_scan(np.ones((4, 3)))
    with pytest.raises(InputError, match="finite"):
        covariance_from_scan(np.full((2, 8), np.nan))
    with pytest.raises(InputError, match="numbers above 0"):
        covariance_from_scan(np.ones((2, 8)), dwell_ratio=0.0)
    with pytest.raises(InputError, match="whitening has shape"):
        whiten(np.ones((3, 4, 4)), np.eye(2))


def masks():
    """Sampling patterns (y, x) by name."""
    full = np.ones((96, 80), bool)
    equispaced = np.zeros_like(full)
    equispaced[::4] = equispaced[38:58] = True
    partial = equispaced.copy()
    partial[70:] = False
    partial_echo = equispaced.copy()
    partial_echo[:, :20] = False
    padded = np.zeros_like(full)
    padded[10:80:3, 8:] = True
    points = np.random.default_rng(1).random(full.shape) < 0.25
    return {
        "full": full,
        "equispaced": equispaced,
        "partial": partial,
        "partial_echo": partial_echo,
        "padded": padded,
        "points": points,
    }


@pytest.mark.parametrize("name", list(masks()))
def test_edges_recover_pure_noise(name):
    estimate = covariance_from_edges(correlated_noise((96, 80)) * masks()[name])
    assert np.abs(estimate - COVARIANCE).max() < 0.2 * 4e-6


@pytest.mark.parametrize("name", ["full", "equispaced", "partial", "padded"])
def test_edge_estimate_excludes_the_object(name):
    """The power of the disc in the corners of k-space is 5 times that of the noise."""
    kspace = 0.05 * disc_kspace(3, 96, 80) + correlated_noise((96, 80))
    estimate = covariance_from_edges(kspace * masks()[name])
    assert np.abs(estimate - COVARIANCE).max() < 0.35 * 4e-6


def test_edge_estimate_ignores_samples_that_are_not_finite():
    kspace = correlated_noise((96, 80))
    kspace[0, 3, 3] = np.nan
    kspace[1, 90] = np.inf
    estimate = covariance_from_edges(kspace)
    assert np.abs(estimate - COVARIANCE).max() < 0.2 * 4e-6


def test_edge_estimate_of_noise_free_data_can_be_inverted():
    assert np.isfinite(whitening_matrix(covariance_from_edges(disc_kspace(4, 64, 64)))).all()


def test_edge_estimate_without_samples_is_an_error():
    with pytest.raises(InputError, match="0 measured samples"):
        covariance_from_edges(np.zeros((4, 8, 8)))


def test_noise_scan_and_edge_estimate_agree_on_a_measured_scan(raw_data):
    with open_scan(raw_data / "siemens_R3_14ch_noise_scan.h5") as scan:
        noise = next(a for a in scan if a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT))
        line = next(a for a in scan if not a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT))
        ratio = noise.sample_time_us / line.sample_time_us
        bandwidth = scan.header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth
        from_scan = covariance_from_scan(noise.data, ratio, bandwidth)
        from_edges = covariance_from_edges(zero_filled_kspace(scan)[0])
    assert noise_sigma(from_edges) == pytest.approx(noise_sigma(from_scan), rel=0.2)
    variances = np.diag(from_edges).real / np.diag(from_scan).real
    assert variances.min() > 0.7
    assert variances.max() < 2


def test_edge_estimate_of_noise_free_data_is_well_conditioned():
    estimate = covariance_from_edges(disc_kspace(8, 48, 40).astype(np.complex64))
    assert np.linalg.cond(estimate) < 40
