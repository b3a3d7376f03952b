"""Coil compression is exact for few sources and optimal otherwise."""

import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.coils.compression import coil_compression

COILS, KEPT = 12, 4


def correlated(rng):
    """Correlated noise covariance with a factor of 10 in sd between coils."""
    mixing = rng.normal(size=(COILS, COILS)) + 1j * rng.normal(size=(COILS, COILS))
    return mixing @ mixing.conj().T + np.diag(np.geomspace(1, 100, COILS))


def low_rank(rng):
    sources = rng.normal(size=(KEPT, 30, 20)) + 1j * rng.normal(size=(KEPT, 30, 20))
    mixing = rng.normal(size=(COILS, KEPT)) + 1j * rng.normal(size=(COILS, KEPT))
    return np.tensordot(mixing, sources, axes=1)


def test_compression_of_few_sources_is_lossless():
    rng = np.random.default_rng(0)
    kspace, covariance = low_rank(rng), correlated(rng)
    found = coil_compression(kspace, KEPT, covariance)
    assert found.loss < 1e-10
    np.testing.assert_allclose(found.matrix @ found.matrix.conj().T, np.eye(KEPT), atol=1e-5)
    # signal energy over noise does not change
    small = found.compressed(kspace).reshape(KEPT, -1)
    full = kspace.reshape(COILS, -1)
    energies = [
        np.sum(k.conj() * np.linalg.solve(cov, k)).real
        for k, cov in ((small, found.covariance(covariance)), (full, covariance))
    ]
    assert energies[0] == pytest.approx(energies[1], rel=1e-4)


def test_compression_preserves_the_norm_over_coils():
    """Required since coil maps are normalised to sum |S|^2 = 1."""
    rng = np.random.default_rng(2)
    kspace, covariance = low_rank(rng), correlated(rng)
    small = coil_compression(kspace, KEPT, covariance).compressed(kspace)
    np.testing.assert_allclose(
        np.linalg.norm(small, axis=0), np.linalg.norm(kspace, axis=0), rtol=1e-4
    )


def test_loss_is_the_lost_fraction_of_signal_energy_and_minimal():
    rng = np.random.default_rng(1)
    covariance = correlated(rng)
    root = np.linalg.cholesky(covariance)
    noise = rng.normal(size=(2, COILS, 4000)) / np.sqrt(2)
    kspace = 50 * rng.normal(size=(COILS, COILS)) @ np.diag(0.5 ** np.arange(COILS))
    kspace = kspace @ rng.normal(size=(COILS, 4000))
    noisy = kspace + root @ (noise[0] + 1j * noise[1])

    def loss(matrix):
        kept = matrix @ kspace
        inner = matrix @ covariance @ matrix.conj().T
        energy = np.sum(kept.conj() * np.linalg.solve(inner, kept)).real
        return 1 - energy / np.sum(kspace.conj() * np.linalg.solve(covariance, kspace)).real

    found = coil_compression(noisy, KEPT, covariance)
    assert found.loss == pytest.approx(loss(found.matrix.astype(np.complex128)), rel=0.05)
    for _ in range(20):
        other = found.matrix + 0.1 * rng.normal(size=(KEPT, COILS))
        assert loss(other.astype(np.complex128)) > found.loss


@pytest.mark.parametrize("coils", [0, COILS + 1])
def test_invalid_number_of_coils_is_an_error(coils):
    with pytest.raises(InputError, match="expected 1 to 12"):
        coil_compression(low_rank(np.random.default_rng(0)), coils)
