"""Fewer virtual coils in place of the array's: less to compute, for a little of the signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.noise import covariance as noise
from scoremri_core.mri.sampling import measured


@dataclass(frozen=True)
class CoilCompression:
    """Virtual coils as combinations of the array's; their noise is not white.

    Attributes
    ----------
    matrix : complex (virtual coil, coil), with orthonormal rows.
    loss : share of the signal's energy, in units of the noise, that the virtual coils lack.
    units : complex (virtual coil, virtual coil), that gives what the virtual coils see the norm
        that it has over the array's.  Where the noise is correlated orthonormal rows alone do not:
        of two coils with much noise in common it is their difference that they hold.
    """

    matrix: NDArray[np.complex64]
    loss: float
    units: NDArray[np.complex64]

    def compressed(self, kspace: ArrayLike) -> NDArray[np.complex64]:
        """k-space (coil, ...) of the virtual coils."""
        data: NDArray[np.complex64] = np.tensordot(
            self.units @ self.matrix, np.asarray(kspace, np.complex64), axes=1
        )
        return data

    def covariance(self, noise_covariance: ArrayLike) -> NDArray[np.complex128]:
        """Noise covariance of the virtual coils."""
        wide = self.units.astype(np.complex128) @ self.matrix
        return np.asarray(wide @ np.asarray(noise_covariance) @ wide.conj().T)


def coil_compression(
    kspace: ArrayLike,
    coils: int,
    noise_covariance: ArrayLike | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> CoilCompression:
    """Virtual coils that keep as much as possible of the signal, in units of the noise.

    The principal components of the whitened k-space (Buehrer et al., Magn Reson Med 57:1131,
    2007; Huang et al., Magn Reson Imaging 26:133, 2008).

    Parameters
    ----------
    kspace : complex (coil, ...), zero where not sampled: the calibration lines, or all there is.
    coils : virtual coils wanted.
    noise_covariance : (coil, coil), E[n n^H] of the complex noise; None takes it as white and
        small.
    mask : bool (...), which samples were measured; None takes those not zero in every coil.

    Raises
    ------
    InputError : no virtual coil, or more than there are coils.
    """
    data = np.asarray(kspace, np.complex128)
    if not 1 <= coils <= len(data):
        raise InputError(f"coils is {coils}: expected 1 to {len(data)}, the channels of the data")
    samples = data[:, measured(data, mask)]
    if noise_covariance is None:
        whitening, floor = np.eye(len(data), dtype=np.complex128), 0.0
    else:
        whitening = noise.whitening_matrix(noise_covariance)
        floor = 2.0 * samples.shape[1]  # E|n|^2 of whitened noise is 2
    white = whitening @ samples
    energies, components = np.linalg.eigh(white @ white.conj().T)
    # the strongest, as combinations of the array's coils, on an orthonormal basis of their span
    kept = components[:, -coils:]
    combinations = kept.conj().T @ whitening
    basis, _ = np.linalg.qr(combinations.conj().T)
    # signals of the array that whitening makes these of, and their coordinates in such a basis
    _, lengths = np.linalg.qr(np.linalg.solve(whitening, kept))
    units = lengths @ combinations @ basis
    signal = np.clip(energies - floor, 0, None)
    loss = float(signal[:-coils].sum() / signal.sum()) if signal.sum() > 0 else 0.0
    return CoilCompression(basis.conj().T.astype(np.complex64), loss, units.astype(np.complex64))
