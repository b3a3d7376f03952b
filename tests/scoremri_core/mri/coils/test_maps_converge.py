"""Coil maps are the leading eigenvectors of the ESPIRiT matrices in every pixel."""

import numpy as np
import pytest
from coil_scans import FULLY_SAMPLED, central_lines, object_of

from scoremri_core.mri.coils.espirit import kernels, lag_matrices, leading
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise.covariance import covariance_from_edges, whitening_matrix
from scoremri_core.mri.sampling import calibration_extent
from scoremri_core.scans.gridding import fully_sampled_kspace


def espirit_matrices(kspace, where, whitening):
    """ESPIRiT matrices A (pixel, coil, coil) at the pixels of a mask."""
    rows, columns = calibration_extent(kspace)
    columns = slice(max(columns.start, kspace.shape[2] // 2 - 16), kspace.shape[2] // 2 + 16)
    block = np.tensordot(whitening, kspace[:, rows, columns], axes=1)[None].astype(np.complex64)
    identity = np.array_equal(whitening, np.eye(len(whitening)))
    lags = lag_matrices(kernels(block, (6, 6), 0.0 if identity else 1.0, np), np)[0]
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
def test_maps_of_measured_scans_have_converged(raw_data, scan, white):
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

    # the span of two sets is invariant under A
    both = estimate_coil_maps(kspace, 2, covariance)[..., where]
    two = both[1].any(axis=0)
    both = unit((whitening @ both[..., two]).T)
    images = matrices[two] @ both
    rest = images - both @ (both.conj().swapaxes(1, 2) @ images)
    assert np.linalg.norm(rest, axis=1).max(initial=0) < 1e-3

    # residual of the full data as for a direct eigendecomposition
    reference = unit(np.linalg.eigh(matrices)[1][..., -1] @ np.linalg.inv(whitening).T).T
    images = to_image(full)[:, where]

    def residual(maps):
        rest = images - maps * (maps.conj() * images).sum(axis=0)
        return np.linalg.norm(rest) / np.linalg.norm(images)

    assert residual(maps[0]) < 1.01 * residual(reference) + 1e-6


@pytest.mark.parametrize("coils", [1, 2, 5, 16])
def test_eigenvectors_converge_for_any_gap_of_eigenvalues(coils):
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
def test_eigenvectors_of_zero_matrices_are_unit_vectors(coils):
    found, largest = leading(np.zeros((3, coils, coils), np.complex64), np)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert not largest.any()
