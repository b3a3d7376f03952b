import logging

import numpy as np
import pytest

from scoremri_core.coil_maps import _virtual_coil, calibration_extent, estimate_coil_maps
from scoremri_core.errors import CalibrationError, InputError
from scoremri_core.fourier import to_image, to_kspace


def simulated_coils(coils, ny, nx):
    """Smooth complex coil maps (coil, y, x) with sum |S|^2 = 1, and an ellipse to image."""
    y = ((np.arange(ny) - ny // 2) / ny)[:, None]
    x = (np.arange(nx) - nx // 2) / nx
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    centre_y, centre_x = 0.6 * np.sin(angles), 0.6 * np.cos(angles)
    maps = np.exp(-2 * ((y - centre_y) ** 2 + (x - centre_x) ** 2))
    maps = maps * np.exp(1j * (angles + 2 * y * np.cos(angles) - 2 * x * np.sin(angles)))
    ellipse = (y / 0.42) ** 2 + (x / 0.36) ** 2 < 1
    image = ellipse * (1 + 0.5 * np.cos(40 * y) * np.sin(30 * x)) * np.exp(1j * (y + 2 * x**2))
    return maps / np.linalg.norm(maps, axis=0), image


def central_lines(kspace, lines):
    kept = np.zeros_like(kspace)
    start = kspace.shape[1] // 2 - lines // 2
    kept[:, start : start + lines] = kspace[:, start : start + lines]
    return kept


def similarity(a, b):
    return np.abs(np.sum(a.conj() * b, axis=0))


@pytest.mark.parametrize(("ny", "nx"), [(64, 64), (65, 60), (62, 71), (63, 63)])
def test_maps_of_a_simulated_scan_are_the_true_ones(ny, nx):
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
    # sigpy's calibration is a square of 24 samples.
    square = central_lines(central_lines(kspace, 24).swapaxes(1, 2), 24).swapaxes(1, 2)
    ours = estimate_coil_maps(square)[0]
    found = similarity(ours, peer)[np.abs(image) > 0]
    assert np.median(found) > 0.99999
    assert np.percentile(found, 1) > 0.9995


def test_agrees_with_sigpy_on_a_real_scan(brain_256):
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
    # A smooth phase: where the truth's changes little between neighbours, so does the map's.
    head = (np.abs(image) > 0)[:, :38]
    change = np.abs(np.angle(maps[1, :, 1:38] * maps[1, :, :37].conj()))
    assert change[head[:, 1:] & head[:, :-1]].max() < 0.4


def test_virtual_coil_sees_all_of_the_object(brain_230):
    """The principal component, from which it starts, all but vanishes at a point of this head."""
    kspace = central_lines(brain_230, 24)
    maps = estimate_coil_maps(kspace)[0]
    block = kspace[:, 78:102, 99:131]
    flat = block.reshape(8, -1)
    principal = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    signal = np.linalg.norm(to_image(kspace), axis=0)
    head = signal > 0.1 * np.percentile(signal, 99)

    def least(coil):
        return np.abs(np.tensordot(coil.conj(), maps, axes=1))[head].min()

    assert least(principal) < 0.05
    assert least(_virtual_coil(maps[None], block[None], np)[0]) > 0.1


def test_maps_do_not_depend_on_the_calibration_block_being_centred():
    truth, image = simulated_coils(5, 64, 64)
    kspace = to_kspace(truth * image)
    kept = np.zeros_like(kspace)
    kept[:, 14:38] = kspace[:, 14:38]
    found = similarity(estimate_coil_maps(kept)[0], truth)[np.abs(image) > 0]
    assert np.median(found) > 0.999


def test_correlated_noise_is_undone_by_its_covariance():
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


def test_second_set_describes_a_field_of_view_that_folds():
    wide, image = simulated_coils(8, 96, 48)
    # A field of view of 64 of the 96 rows: the ends of the object fold onto each other.
    folded = np.zeros((8, 64, 48), complex)
    rows = (np.arange(96) - 48 + 32) % 64
    np.add.at(folded, (slice(None), rows), wide * image)
    maps = estimate_coil_maps(central_lines(to_kspace(folded), 24), sets=2)
    signal = np.linalg.norm(folded, axis=0)
    overlap = np.zeros(64, bool)
    overlap[:6] = overlap[-6:] = True
    alone = similarity(maps[0], folded)
    both = np.sqrt(alone**2 + similarity(maps[1], folded) ** 2)
    unexplained_by_one = np.sum((signal**2 - alone**2)[overlap])
    unexplained_by_two = np.sum((signal**2 - both**2)[overlap])
    assert unexplained_by_two < 0.1 * unexplained_by_one
    # Where nothing folds there is no second set, and the sets are orthogonal.
    weight = np.linalg.norm(maps[1], axis=0)
    assert weight[28:36, 20:28].max() == 0
    assert weight[overlap][signal[overlap] > 0.5].mean() > 0.5
    assert similarity(maps[0], maps[1]).max() < 1e-3


@pytest.mark.parametrize("sets", [1, 2])
def test_slices_of_a_stack_are_what_they_are_alone(sets, caplog):
    """Each with its own noise and number of kernels, and one with its own calibration lines."""
    truth, image = simulated_coils(5, 48, 45)
    rng = np.random.default_rng(2)
    sigma = np.array([0.001, 0.02, 0.3])[:, None, None, None]
    noise = rng.normal(size=(2, 3, *truth.shape))
    kspace = to_kspace(truth * image) + sigma * (noise[0] + 1j * noise[1])
    stack = np.stack([central_lines(k, n) for k, n in zip(kspace, (24, 24, 8), strict=True)])
    covariances = 2 * sigma[..., 0] ** 2 * np.eye(5)
    maps = estimate_coil_maps(stack, sets, covariances)
    assert len([message for message in caplog.messages if "too few" in message]) == 1
    for own, k, covariance in zip(maps, stack, covariances, strict=True):
        np.testing.assert_allclose(own, estimate_coil_maps(k, sets, covariance), atol=1e-4)


def test_few_lines_give_a_low_resolution_estimate_and_say_so(caplog):
    truth, image = simulated_coils(6, 64, 64)
    with caplog.at_level(logging.WARNING):
        maps = estimate_coil_maps(central_lines(to_kspace(truth * image), 8), sets=2)
    assert "8 x 64 calibration samples are too few" in caplog.text
    assert np.median(similarity(maps[0], truth)[np.abs(image) > 0]) > 0.98
    np.testing.assert_allclose(np.sum(np.abs(maps[0]) ** 2, axis=0), 1, atol=1e-5)
    assert not maps[1].any()


def test_dead_coil_keeps_the_rest():
    truth, image = simulated_coils(5, 64, 64)
    truth[2] = 0
    truth /= np.linalg.norm(truth, axis=0)
    maps = estimate_coil_maps(central_lines(to_kspace(truth * image), 24))[0]
    assert np.median(similarity(maps, truth)[np.abs(image) > 0]) > 0.999
    assert np.abs(maps[2])[np.abs(image) > 0].max() < 1e-3


@pytest.mark.parametrize(
    ("kspace", "reason"),
    [
        (np.zeros((4, 32, 32)), "centre of k-space is empty"),
        (np.full((4, 32, 32), np.nan), "not finite"),
        (np.ones((4, 32, 32)) * (np.arange(32) % 3 == 1)[:, None], "no calibration lines"),
    ],
)
def test_missing_calibration_is_an_error(kspace, reason):
    with pytest.raises(CalibrationError, match=reason):
        estimate_coil_maps(kspace)


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="expected 1 or 2"):
        estimate_coil_maps(np.ones((2, 32, 32)), sets=3)
    with pytest.raises(InputError, match=r"expected .* \(slice, coil, y, x\)"):
        estimate_coil_maps(np.ones((32, 32)))


def lines(ny, nx, *which):
    mask = np.zeros((ny, nx), bool)
    for w in which:
        mask[w] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((40, 30), bool), (0, 40, 0, 30)),
        (lines(64, 32, slice(None, None, 4), slice(20, 44)), (20, 45, 0, 32)),
        (lines(63, 31, slice(None, None, 4), slice(19, 43)), (19, 43, 0, 31)),
        # R = 3 from 18 to 123, calibration lines 48 to 96, DC at 72, as in a Siemens scan.
        (lines(144, 96, slice(18, 124, 3), slice(48, 97)), (48, 97, 0, 96)),
        (lines(64, 32, slice(30, 60)), (30, 60, 0, 32)),
        # Partial echo: the readouts begin late.
        (lines(64, 32, (slice(20, 44), slice(9, None))), (20, 44, 9, 32)),
        # Both axes undersampled: a square block rather than the long thin line through DC.
        (
            lines(64, 64, (slice(None, None, 2), slice(None, None, 2)), 32,
                  (slice(20, 44), slice(24, 40))),
            (20, 44, 24, 40),
        ),
    ],
)  # fmt: skip
def test_extent_is_the_fully_sampled_block_around_dc(mask, expected):
    y, x = calibration_extent(mask)
    assert mask[y, x].all()
    kspace = np.stack([np.zeros(mask.shape), mask * 1j])
    assert calibration_extent(kspace) == (y, x)
    assert (y.start, y.stop, x.start, x.stop) == expected


def test_extent_of_a_round_block_is_its_inscribed_square():
    y, x = np.mgrid[-32:32, -32:32]
    extent = calibration_extent(np.hypot(y, x) <= 14)
    assert all(18 <= s.stop - s.start <= 22 for s in extent)


def test_extent_needs_the_centre():
    with pytest.raises(CalibrationError, match="centre"):
        calibration_extent(lines(64, 32, slice(0, 20)))
