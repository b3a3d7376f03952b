"""Coil compression to virtual coils."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.noise import covariance as noise
from scoremri_core.mri.sampling import measured


@dataclass(frozen=True)
class CoilCompression:
    """Virtual coils as linear combinations of the coils.

    Attributes
    ----------
    matrix : complex64 array, (virtual coil, coil)
        With orthonormal rows.
    loss : float
        Lost fraction of the signal energy, in units of the noise.
    units : complex64 array, (virtual coil, virtual coil)
        Applied after `matrix` to restore the norm of the signal over the coils. Correlated noise
        requires it, since the rows of `matrix` then favour differences of coils.
    """

    matrix: NDArray[np.complex64]
    loss: float
    units: NDArray[np.complex64]

    def compressed(self, kspace: ArrayLike) -> NDArray[np.complex64]:
        """Compress k-space.

        Parameters
        ----------
        kspace : complex array, (coil, ...)

        Returns
        -------
        complex64 array, (virtual coil, ...)
        """
        data: NDArray[np.complex64] = np.tensordot(
            self.units @ self.matrix, np.asarray(kspace, np.complex64), axes=1
        )
        return data

    def covariance(self, noise_covariance: ArrayLike) -> NDArray[np.complex128]:
        """Compute the noise covariance of the virtual coils from that of the coils."""
        matrix = self.units.astype(np.complex128) @ self.matrix
        return np.asarray(matrix @ np.asarray(noise_covariance) @ matrix.conj().T)


def coil_compression(
    kspace: ArrayLike,
    coils: int,
    noise_covariance: ArrayLike | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> CoilCompression:
    """Compute virtual coils by principal component analysis of whitened k-space.

    Parameters
    ----------
    kspace : complex array, (coil, ...)
        Calibration lines or all k-space, zero where not sampled.
    coils : int
        Number of virtual coils.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H]. Default: white and negligible.
    mask : bool array, (...), optional
        Measured samples. Default: those that are not zero in every coil.

    Returns
    -------
    CoilCompression

    Raises
    ------
    InputError
        `coils` is below 1 or above the number of coils.

    References
    ----------
    .. [1] Buehrer M et al. Array compression for MRI with large coil arrays. Magn Reson Med
       57:1131-1139 (2007).
    .. [2] Huang F et al. A software channel compression technique for faster reconstruction with
       many channels. Magn Reson Imaging 26:133-141 (2008).
    """
    data = np.asarray(kspace, np.complex128)
    if not 1 <= coils <= len(data):
        raise InputError(f"coils is {coils}: expected 1 to {len(data)}, the number of coils")
    samples = data[:, measured(data, mask)]
    if noise_covariance is None:
        whitening, floor = np.eye(len(data), dtype=np.complex128), 0.0
    else:
        whitening = noise.whitening_matrix(noise_covariance)
        floor = 2.0 * samples.shape[1]  # E|n|^2 of whitened noise is 2
    white = whitening @ samples
    energies, components = np.linalg.eigh(white @ white.conj().T)
    # principal components as combinations of the coils, on an orthonormal basis of their span
    kept = components[:, -coils:]
    combinations = kept.conj().T @ whitening
    basis, _ = np.linalg.qr(combinations.conj().T)
    # the same components before whitening, on an orthonormal basis
    _, lengths = np.linalg.qr(np.linalg.solve(whitening, kept))
    units = lengths @ combinations @ basis
    signal = np.clip(energies - floor, 0, None)
    loss = float(signal[:-coils].sum() / signal.sum()) if signal.sum() > 0 else 0.0
    return CoilCompression(basis.conj().T.astype(np.complex64), loss, units.astype(np.complex64))
