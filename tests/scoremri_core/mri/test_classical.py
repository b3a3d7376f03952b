"""Classical reconstructions against the truth, dense solutions and zero filling."""

import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.classical import (
    _power_spectrum,
    best_classical,
    cautious_sense,
    cg_sense,
    l1_wavelet,
    mvue,
    root_sum_of_squares,
    zero_filled,
)
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.masks import make_mask


def random_coils(coils, ny, nx, seed=0):
    """Smooth maps with sum |S|^2 = 1."""
    rng = np.random.default_rng(seed)
    centre = np.zeros((coils, ny, nx), complex)
    middle = np.s_[:, ny // 2 - 1 : ny // 2 + 2, nx // 2 - 1 : nx // 2 + 2]
    centre[middle] = rng.normal(size=(coils, 3, 3)) + 1j * rng.normal(size=(coils, 3, 3))
    maps = to_image(centre)
    return maps / np.linalg.norm(maps, axis=0)


def lattice_image(ny, nx, seed=0):
    """A sample of a stationary Gaussian image with 1 / f^2 amplitude, and its spectrum."""
    y = (np.arange(ny) - ny // 2)[:, None] / ny
    x = (np.arange(nx) - nx // 2) / nx
    spectrum = 1 / (0.02 + y**2 + x**2) ** 2
    rng = np.random.default_rng(seed)
    white = (rng.normal(size=(2, ny, nx)) / np.sqrt(2)).T @ [1, 1j]
    return to_image(np.sqrt(spectrum) * white.T), spectrum


def noise(covariance, shape, seed=1):
    rng = np.random.default_rng(seed)
    white = (rng.normal(size=(len(covariance), *shape, 2)) / np.sqrt(2)) @ [1, 1j]
    return np.tensordot(np.linalg.cholesky(covariance), white, axes=1)


def test_mvue_of_noiseless_full_data_is_the_image():
    maps = random_coils(4, 21, 16)
    image, _ = lattice_image(21, 16)
    kspace = to_kspace(maps * image)
    np.testing.assert_allclose(mvue(kspace, maps), image, rtol=1e-4, atol=1e-3)
    # maps need not be normalised; pixels with zero maps are zero
    scaled = 3 * maps
    scaled[:, 2, 3] = 0
    found = mvue(kspace, scaled)
    assert found[2, 3] == 0
    assert found[5, 5] == pytest.approx(image[5, 5] / 3, rel=1e-3)
    np.testing.assert_allclose(root_sum_of_squares(kspace), np.abs(image), rtol=1e-3, atol=1e-3)


def test_zero_filled_is_the_adjoint():
    """<A x, y> = <x, A^H y> for A = P F S."""
    maps = random_coils(3, 14, 15)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(14, 15, 2)) @ [1, 1j]
    mask = rng.random((14, 15)) < 0.4
    y = (rng.normal(size=(3, 14, 15, 2)) @ [1, 1j]) * mask
    left = np.vdot(to_kspace(maps * x) * mask, y)
    assert left == pytest.approx(np.vdot(x, zero_filled(y, maps)), rel=1e-5)


def test_cg_sense_is_the_posterior_mean_of_its_prior():
    """Compare with the dense solution x = C A^H (A C A^H + N)^-1 y."""
    ny, nx, coils = 10, 9, 3
    maps = random_coils(coils, ny, nx)
    image, _ = lattice_image(ny, nx)
    root = np.array([[1, 0, 0], [0.5j, 1, 0], [0.2, 0.1, 0.7]])
    covariance = root @ root.conj().T
    mask = np.zeros((ny, nx), bool)
    mask[::2] = mask[4:7] = True
    kspace = ((to_kspace(maps * image) + noise(covariance, (ny, nx))) * mask).astype(np.complex64)

    unit = np.eye(ny * nx).reshape(-1, ny, nx)
    forward = to_kspace(maps[None] * unit[:, None])[..., mask].reshape(ny * nx, -1).T
    fourier = to_kspace(unit.astype(complex)).reshape(ny * nx, -1).T
    spectrum = _power_spectrum(kspace, mask, covariance).ravel()
    prior = fourier.conj().T @ (spectrum[:, None] * fourier)
    data = forward @ prior @ forward.conj().T + np.kron(covariance, np.eye(mask.sum()))
    gain = prior @ forward.conj().T @ np.linalg.inv(data)
    dense = (gain @ kspace[:, mask].ravel()).reshape(ny, nx)

    found = cg_sense(kspace, maps, covariance, iterations=500, tolerance=1e-6)
    assert np.linalg.norm(found - dense) < 1e-3 * np.linalg.norm(dense)


def test_power_spectrum_is_that_of_the_image():
    image, truth = lattice_image(64, 64)
    maps = random_coils(4, 64, 64)
    covariance = 0.3 * np.eye(4)
    kspace = to_kspace(maps * image) + noise(covariance, (64, 64))
    mask = np.zeros((64, 64), bool)
    mask[::3] = mask[22:42] = True
    found = _power_spectrum(np.where(mask, kspace, 0), mask, covariance)
    ratio = found / truth
    assert 0.8 < np.median(ratio[mask]) < 1.2
    assert found.min() > 0


def test_cg_sense_outperforms_zero_filling(brain_230):
    mask = make_mask("equispaced", (180,), 4, 24).sampled[:, None]
    maps = estimate_coil_maps(brain_230 * mask)[0]
    reference = mvue(brain_230, maps)
    found = psnr(cg_sense(brain_230 * mask, maps), reference)
    assert found > psnr(zero_filled(brain_230 * mask, maps), reference) + 5
    assert found > 32.5


def test_cg_sense_of_full_data_is_close_to_the_mvue():
    maps = random_coils(4, 32, 32)
    image, _ = lattice_image(32, 32)
    kspace = to_kspace(maps * image)
    found = cg_sense(kspace, maps, 1e-4 * np.eye(4))
    assert np.linalg.norm(found - image) < 1e-2 * np.linalg.norm(image)


def test_shapes_that_do_not_match_are_an_error():
    with pytest.raises(InputError, match="maps has shape"):
        cg_sense(np.ones((3, 8, 8)), np.ones((4, 8, 8)))


def test_l1_wavelet_recovers_a_sparse_image_of_any_scale():
    maps = random_coils(4, 64, 64)
    image = np.zeros((64, 64), complex)
    image[20:40, 12:44] = 1
    image[28:36, 20:30] = 2j
    mask = make_mask("random", (64,), 3, 16, seed=1).sampled[:, None]
    kspace = to_kspace(maps * image) * mask
    found = l1_wavelet(kspace, maps, 0.003, iterations=40)
    assert psnr(found, image) > psnr(zero_filled(kspace, maps), image) + 6
    again = l1_wavelet(1e-5 * kspace, maps, 0.003, iterations=40)
    np.testing.assert_allclose(1e5 * again, found, atol=2e-3)


def test_cautious_sense_regularises_only_inaccurate_maps():
    """R = 6 with 6 calibration lines."""
    image, _ = lattice_image(64, 48)
    maps, others = random_coils(8, 64, 48), random_coils(8, 64, 48, seed=5)
    mask = make_mask("equispaced", (64,), 6, 6).sampled[:, None]
    sd = 0.01 * np.abs(image).max()
    covariance = 2 * sd**2 * np.eye(8)
    kspace = (to_kspace(maps * image) + noise(covariance, (64, 48))) * mask
    wrong = 0.8 * maps + 0.6 * others
    for used, equal in ((maps, True), (wrong, False)):
        plain, cautious = (f(kspace, used, covariance) for f in (cg_sense, cautious_sense))
        assert np.array_equal(plain, cautious) is equal
    errors = [np.linalg.norm(np.abs(x) - np.abs(image)) for x in (plain, cautious)]
    assert errors[1] < 0.5 * errors[0]


def test_best_classical_of_few_calibration_lines_is_the_best_of_both(brain_230):
    kspace = brain_230 * make_mask("equispaced", brain_230.shape[-2:-1], 8, 8).sampled[:, None]
    reference = mvue(brain_230, estimate_coil_maps(brain_230)[0])
    maps = estimate_coil_maps(kspace)[0]
    quality = {f: psnr(np.abs(f(kspace, maps)), np.abs(reference)) for f in (cg_sense, zero_filled)}
    found = psnr(np.abs(best_classical(kspace, maps, None)), np.abs(reference))
    assert found > max(quality.values()) - 0.01


def test_best_classical_is_finite():
    maps = random_coils(4, 32, 24)
    image, _ = lattice_image(32, 24)
    kspace = to_kspace(maps * image).astype(np.complex64)
    kspace[2, 3, 4] = np.nan
    kspace[0, 30] = np.inf
    clean = np.where(np.isfinite(kspace).all(axis=0), kspace, 0)
    plain = root_sum_of_squares(clean)
    np.testing.assert_allclose(best_classical(kspace, None, None), plain, rtol=1e-6)
    np.testing.assert_allclose(best_classical(kspace, maps * np.nan, None), plain, rtol=1e-6)
    found = best_classical(kspace, maps, np.eye(4) * 1e-3)
    assert found.dtype == np.complex64
    assert psnr(found, image) > 35
    assert not best_classical(0 * clean, maps, None).any()


def test_best_classical_combines_two_sets():
    maps = random_coils(4, 32, 24)
    image, _ = lattice_image(32, 24)
    sets = np.stack([maps, np.zeros_like(maps)])
    kspace = to_kspace(maps * image)
    one = best_classical(kspace, maps, np.eye(4) * 1e-3)
    two = best_classical(kspace, sets, np.eye(4) * 1e-3)
    assert two.shape == (32, 24)
    assert np.linalg.norm(two - one) < 1e-2 * np.linalg.norm(one)
