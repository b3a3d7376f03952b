import logging

import numpy as np
import pytest

from scoremri_core.errors import CalibrationError, InputError
from scoremri_core.mri.coil_maps import calibration_extent, estimate_coil_maps
from scoremri_core.mri.espirit import kernels, lag_matrices, leading
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise import covariance_from_edges, whitening_matrix
from scoremri_core.mri.virtual_coil import object_signal, virtual_coil
from scoremri_core.scans.gridding import fully_sampled_kspace

FULLY_SAMPLED = [
    "brain_axial_8ch_256x256.h5",
    "brain_axial_8ch_230x180.h5",
    "brain_ge_4ch_256x256.h5",
    "phantom_7slices_8ch_128x128.h5",
    "phantom_4ch_256x256.h5",
    "head_1ch_512x512.h5",
    "thorax_8ch_semisynthetic.h5",
    "abdomen_8ch_semisynthetic.h5",
]


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


def folded(kspace, rows):
    """The k-space of a field of view of fewer rows, onto which the image folds."""
    image = to_image(kspace)
    short = np.zeros((len(image), rows, image.shape[2]), complex)
    onto = (np.arange(image.shape[1]) - image.shape[1] // 2 + rows // 2) % rows
    np.add.at(short, (slice(None), onto), image)
    return to_kspace(short).astype(np.complex64)


def object_of(kspace):
    signal = np.linalg.norm(to_image(kspace), axis=0)
    return signal > 0.1 * np.percentile(signal, 99)


def espirit_matrices(kspace, where, whitening):
    """ESPIRiT's matrices A (pixel, coil, coil) at the pixels of a mask, one by one."""
    rows, columns = calibration_extent(kspace)
    columns = slice(max(columns.start, kspace.shape[2] // 2 - 16), kspace.shape[2] // 2 + 16)
    block = np.tensordot(whitening, kspace[:, rows, columns], axes=1)[None].astype(np.complex64)
    identity = np.array_equal(whitening, np.eye(len(whitening)))
    lags = lag_matrices(kernels(block, 6, 0.0 if identity else 1.0, np), np)[0]
    lag = np.fft.fftfreq(len(lags), 1 / len(lags))
    y, x = np.nonzero(where)
    along_y, along_x = (
        np.exp(2j * np.pi / n * np.outer(r - n // 2, lag)).astype(np.complex64)
        for r, n in zip((y, x), where.shape, strict=True)
    )
    waves = (along_y[:, :, None] * along_x[:, None]).reshape(len(y), -1)
    return (waves @ lags.reshape(waves.shape[1], -1)).reshape(-1, *lags.shape[2:])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("scan", FULLY_SAMPLED)
@pytest.mark.parametrize("white", [False, True])
def test_maps_of_real_scans_have_converged(raw_data, scan, white):
    full = fully_sampled_kspace(raw_data / scan)[-1]
    kspace = central_lines(full, 24)
    covariance = covariance_from_edges(full) if white else None
    whitening = np.eye(len(full)) if covariance is None else whitening_matrix(covariance)
    where = object_of(full)
    matrices = espirit_matrices(kspace, where, whitening)

    maps = estimate_coil_maps(kspace, 1, covariance)[..., where]
    vectors = unit((whitening @ maps[0]).T)[..., None]
    images = matrices @ vectors
    values = (vectors.conj() * images).sum(axis=1, keepdims=True).real
    assert np.linalg.norm(images - values * vectors, axis=1).max(initial=0) < 1e-3

    # Of two sets it is the space they span that A has to keep.
    both = estimate_coil_maps(kspace, 2, covariance)[..., where]
    two = both[1].any(axis=0)
    both = unit((whitening @ both[..., two]).T)
    images = matrices[two] @ both
    rest = images - both @ (both.conj().swapaxes(1, 2) @ images)
    assert np.linalg.norm(rest, axis=1).max(initial=0) < 1e-3

    # What one set leaves of the full data is what a direct eigendecomposition leaves.
    reference = unit(np.linalg.eigh(matrices)[1][..., -1] @ np.linalg.inv(whitening).T).T
    images = to_image(full)[:, where]

    def left(own):
        rest = images - own * (own.conj() * images).sum(axis=0)
        return np.linalg.norm(rest) / np.linalg.norm(images)

    assert left(maps[0]) < 1.01 * left(reference) + 1e-6


@pytest.mark.parametrize("coils", [1, 2, 5, 16])
def test_eigenvectors_converge_however_near_the_second_eigenvalue(coils):
    rng = np.random.default_rng(3)
    gaps = np.concatenate([[0.0], np.logspace(-7, 0, 2000)])
    basis = rng.normal(size=(2, len(gaps), coils, coils))
    basis = np.linalg.qr(basis[0] + 1j * basis[1])[0]
    values = np.ones((len(gaps), coils))
    values[:, 1:] = (1 - gaps[:, None]) * rng.uniform(0.9, 1, (len(gaps), coils - 1))
    values[:, 1:2] = 1 - gaps[:, None]
    matrices = (basis * values[:, None]) @ basis.conj().swapaxes(1, 2)
    found, largest = leading(matrices.astype(np.complex64), np)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(matrices @ found - largest[:, None, None] * found, axis=1).max() < 1e-3
    np.testing.assert_allclose(largest, 1, atol=2e-3)


@pytest.mark.parametrize("coils", [1, 4])
def test_pixels_without_any_kernel_have_vectors_of_length_one(coils):
    found, largest = leading(np.zeros((3, coils, coils), np.complex64), np)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert not largest.any()


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


def test_virtual_coil_sees_all_of_the_object(raw_data):
    """The principal component, from which it starts, all but vanishes at a point of this head."""
    full = fully_sampled_kspace(raw_data / "brain_ge_4ch_256x256.h5")[0]
    kspace = central_lines(full, 24)
    maps = estimate_coil_maps(kspace)[0]
    block = kspace[:, 116:140, 112:144]
    flat = block.reshape(4, -1)
    principal = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    head = object_of(kspace)

    def least(coil):
        return np.abs(np.tensordot(coil.conj(), maps, axes=1))[head].min()

    assert least(principal) < 0.05
    coarse = object_signal(block[None], kspace.shape[1:], np)
    assert least(virtual_coil(maps[None], block[None], coarse, np)[0]) > 0.1


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
    kspace = folded(to_kspace(wide * image), 64)
    maps = estimate_coil_maps(central_lines(kspace, 24), sets=2)
    coils = to_image(kspace)
    signal = np.linalg.norm(coils, axis=0)
    overlap = np.zeros(64, bool)
    overlap[:6] = overlap[-6:] = True
    alone = similarity(maps[0], coils)
    both = np.sqrt(alone**2 + similarity(maps[1], coils) ** 2)
    unexplained_by_one = np.sum((signal**2 - alone**2)[overlap])
    unexplained_by_two = np.sum((signal**2 - both**2)[overlap])
    assert unexplained_by_two < 0.1 * unexplained_by_one
    # Where nothing folds there is no second set, and the sets are orthogonal.
    weight = np.linalg.norm(maps[1], axis=0)
    assert weight[28:36, 20:28].max() == 0
    assert weight[overlap][signal[overlap] > 0.5].mean() > 0.5
    assert similarity(maps[0], maps[1]).max() < 1e-3
    np.testing.assert_array_equal(estimate_coil_maps(central_lines(kspace, 24), "auto"), maps)


def test_two_sets_change_smoothly_where_their_eigenvalues_are_alike():
    wide, image = simulated_coils(8, 96, 48)
    kspace = folded(to_kspace(wide * image), 64)
    noise = np.random.default_rng(4).normal(size=(2, *kspace.shape)) * 0.05
    kspace = central_lines(kspace + noise[0] + 1j * noise[1], 24)
    maps = estimate_coil_maps(kspace, sets=2)
    twice = np.linalg.norm(maps[1], axis=0) > 0.99  # both eigenvalues above .9
    for own in maps:
        along_x = similarity(own[..., 1:], own[..., :-1])[twice[:, 1:] & twice[:, :-1]]
        assert np.percentile(along_x, 1) > 0.97


def test_one_coil_is_its_own_map():
    image = simulated_coils(3, 48, 45)[1]
    kspace = central_lines(to_kspace(image[None]), 24)
    for sets in (1, 2, "auto"):
        maps = estimate_coil_maps(kspace, sets)
        assert len(maps) == (2 if sets == 2 else 1)
        np.testing.assert_allclose(np.abs(maps[0]), 1, atol=1e-5)
        assert not maps[1:].any()


def test_auto_gives_a_second_set_to_the_slices_that_fold():
    truth, image = simulated_coils(6, 96, 48)
    unfolding = to_kspace(truth * np.pad(image[::2], ((24, 24), (0, 0))))
    stack = np.stack([folded(to_kspace(truth * image), 64), folded(unfolding, 64)])
    stack = np.stack([central_lines(kspace, 24) for kspace in stack])
    maps = estimate_coil_maps(stack, "auto")
    assert maps.shape == (2, 2, 6, 64, 48)
    assert maps[0, 1].any()
    assert not maps[1, 1].any()
    np.testing.assert_allclose(maps[0], estimate_coil_maps(stack[0], 2), atol=1e-5)
    np.testing.assert_allclose(maps[1, :1], estimate_coil_maps(stack[1], "auto"), atol=1e-3)
    assert estimate_coil_maps(stack[1:], "auto").shape == (1, 1, 6, 64, 48)


@pytest.mark.parametrize("lines", [16, 24, 32])
@pytest.mark.parametrize("white", [False, True])
def test_auto_tells_whether_a_real_scan_folds(raw_data, lines, white):
    # The abdomen is not among them: it runs through the upper and lower edge of its image.
    for scan in (name for name in FULLY_SAMPLED if not name.startswith("abdomen")):
        full = fully_sampled_kspace(raw_data / scan)[-1]
        half = folded(full, full.shape[1] // 2)
        for kspace, sets in ((full, 1), (half, 1 if len(full) == 1 else 2)):
            covariance = covariance_from_edges(kspace) if white else None
            maps = estimate_coil_maps(central_lines(kspace, lines), "auto", covariance)
            assert len(maps) == sets, scan


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
