"""Coil maps of simulated and measured scans, against the truth and sigpy."""

import numpy as np
import pytest
from coil_scans import central_lines, object_of, similarity, simulated_coils

from scoremri_core.errors import CalibrationError, InputError
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.coils.virtual_coil import object_signal, virtual_coil
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.scans.gridding import fully_sampled_kspace


@pytest.mark.parametrize(("ny", "nx"), [(64, 64), (65, 60), (62, 71), (63, 63)])
def test_maps_of_a_simulated_scan_are_correct(ny, nx):
    truth, image = simulated_coils(6, ny, nx)
    maps = estimate_coil_maps(central_lines(to_kspace(truth * image), 24))
    assert maps.shape == (1, 6, ny, nx)
    assert maps.dtype == np.complex64
    head = np.abs(image) > 0
    found = similarity(maps[0], truth)[head]
    assert np.median(found) > 0.999
    assert found.min() > 0.97
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=1), 1, atol=1e-5)


def test_agrees_with_sigpy():
    mr = pytest.importorskip("sigpy.mri")
    truth, image = simulated_coils(4, 48, 45)
    rng = np.random.default_rng(0)
    kspace = to_kspace(truth * image) + 0.01 * rng.normal(size=truth.shape)
    kspace = kspace.astype(np.complex64)
    peer = mr.app.EspiritCalib(kspace, crop=0, show_pbar=False).run()
    # sigpy uses a square of 24 samples
    square = central_lines(central_lines(kspace, 24).swapaxes(1, 2), 24).swapaxes(1, 2)
    ours = estimate_coil_maps(square)[0]
    found = similarity(ours, peer)[np.abs(image) > 0]
    assert np.median(found) > 0.99999
    assert np.percentile(found, 1) > 0.9995


def test_agrees_with_sigpy_on_a_measured_scan(brain_256):
    mr = pytest.importorskip("sigpy.mri")
    centre = slice(80, 176)
    kspace = np.ascontiguousarray(brain_256[:, centre, centre])
    peer = mr.app.EspiritCalib(kspace, crop=0, show_pbar=False).run()
    ours = estimate_coil_maps(central_lines(kspace, 24))[0]
    combined = np.linalg.norm(to_image(kspace), axis=0)
    found = similarity(ours, peer)[combined > 0.1 * combined.max()]
    assert np.median(found) > 0.999
    assert np.percentile(found, 1) > 0.996


def test_phase_is_smooth_where_the_first_coil_vanishes():
    truth, image = simulated_coils(5, 64, 64)
    truth[0] *= np.arange(64) > 40
    truth /= np.linalg.norm(truth, axis=0)
    maps = estimate_coil_maps(central_lines(to_kspace(truth * image), 24))[0]

    head = (np.abs(image) > 0)[:, :38]
    change = np.abs(np.angle(maps[1, :, 1:38] * maps[1, :, :37].conj()))
    assert change[head[:, 1:] & head[:, :-1]].max() < 0.4


def test_virtual_coil_is_sensitive_everywhere_in_the_object(raw_data):
    """The principal component, its initial value, nearly vanishes at a point of this head."""
    full = fully_sampled_kspace(raw_data / "brain_ge_4ch_256x256.h5")[0]
    kspace = central_lines(full, 24)
    maps = estimate_coil_maps(kspace)[0]
    block = kspace[:, 116:140, 112:144]
    flat = block.reshape(4, -1)
    principal = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    head = object_of(kspace)

    def minimum(coil):
        return np.abs(np.tensordot(coil.conj(), maps, axes=1))[head].min()

    assert minimum(principal) < 0.05
    coarse = object_signal(block[None], kspace.shape[1:], np)
    assert minimum(virtual_coil(maps[None], block[None], coarse, np)[0]) > 0.1


def test_calibration_region_need_not_be_centred():
    truth, image = simulated_coils(5, 64, 64)
    kspace = to_kspace(truth * image)
    kept = np.zeros_like(kspace)
    kept[:, 14:38] = kspace[:, 14:38]
    found = similarity(estimate_coil_maps(kept)[0], truth)[np.abs(image) > 0]
    assert np.median(found) > 0.999


def test_noise_covariance_improves_maps_with_correlated_noise():
    truth, image = simulated_coils(6, 64, 64)
    rng = np.random.default_rng(1)
    root = np.eye(6) + 0.5 * (rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6)))
    noise = rng.normal(size=(2, 6, 64, 64))
    noise = 0.05 * np.tensordot(root, noise[0] + 1j * noise[1], axes=1)
    covariance = 2 * 0.0025 * root @ root.conj().T
    kspace = central_lines(to_kspace(truth * image) + noise, 24)
    head = np.abs(image) > 0
    white = similarity(estimate_coil_maps(kspace, noise_covariance=covariance)[0], truth)[head]
    plain = similarity(estimate_coil_maps(kspace)[0], truth)[head]
    assert np.median(white) > 0.999
    assert np.mean(1 - white) < np.mean(1 - plain)


def test_map_of_one_coil_is_1():
    image = simulated_coils(3, 48, 45)[1]
    kspace = central_lines(to_kspace(image[None]), 24)
    for sets in (1, 2, "auto"):
        maps = estimate_coil_maps(kspace, sets)
        assert len(maps) == (2 if sets == 2 else 1)
        np.testing.assert_allclose(np.abs(maps[0]), 1, atol=1e-5)
        assert not maps[1:].any()


@pytest.mark.parametrize("sets", [1, 2])
def test_slices_of_a_stack_do_not_depend_on_each_other(sets):
    """With different noise, numbers of kernels and calibration lines."""
    truth, image = simulated_coils(5, 48, 45)
    rng = np.random.default_rng(2)
    sigma = np.array([0.001, 0.02, 0.3])[:, None, None, None]
    noise = rng.normal(size=(2, 3, *truth.shape))
    kspace = to_kspace(truth * image) + sigma * (noise[0] + 1j * noise[1])
    stack = np.stack([central_lines(k, n) for k, n in zip(kspace, (24, 24, 8), strict=True)])
    covariances = 2 * sigma[..., 0] ** 2 * np.eye(5)
    maps = estimate_coil_maps(stack, sets, covariances)
    for of_slice, k, covariance in zip(maps, stack, covariances, strict=True):
        np.testing.assert_allclose(of_slice, estimate_coil_maps(k, sets, covariance), atol=1e-4)


def test_dead_coil_does_not_change_the_others():
    truth, image = simulated_coils(5, 64, 64)
    truth[2] = 0
    truth /= np.linalg.norm(truth, axis=0)
    maps = estimate_coil_maps(central_lines(to_kspace(truth * image), 24))[0]
    assert np.median(similarity(maps, truth)[np.abs(image) > 0]) > 0.999
    assert np.abs(maps[2])[np.abs(image) > 0].max() < 1e-3


@pytest.mark.parametrize(
    ("kspace", "reason"),
    [
        (np.zeros((4, 32, 32)), "centre of k-space is not sampled"),
        (np.full((4, 32, 32), np.nan), "not finite"),
        (np.ones((4, 32, 32)) * (np.arange(32) % 3 == 1)[:, None], "no calibration lines"),
    ],
)
def test_missing_calibration_is_an_error(kspace, reason):
    with pytest.raises(CalibrationError, match=reason):
        estimate_coil_maps(kspace)


def test_invalid_arguments_are_an_error():
    with pytest.raises(InputError, match="expected 1 or 2"):
        estimate_coil_maps(np.ones((2, 32, 32)), sets=3)
    with pytest.raises(InputError, match=r"expected .* \(slice, coil, y, x\)"):
        estimate_coil_maps(np.ones((32, 32)))
