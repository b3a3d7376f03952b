"""What the data show that the model cannot explain, and what the noise level owes to it.

A noise level that is too low is ruinous: samples then follow errors of the coil maps, of motion,
of a vendor's filter, and call them certain.  One that is too high by two costs little.  So the
noise of the likelihood is never lower than what the measured lines themselves show.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.coil_maps import calibration_extent
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise import noise_sigma, whitening_matrix

logger = logging.getLogger(__name__)

LEAST_SIGMA = 0.001  # of the image's scale: below it no solver converges and no prior is known
OUTER = 0.6  # of the readout's half-width: beyond it, errors of the maps count little
OBJECT = 0.1  # of the signal's 99th percentile
QUIET_SHARE = 0.5  # of the object's pixels: the others have sharp edges, of which maps know less
QUIET_BIAS = 1.15  # variance that all pixels of pure noise have over that of the quiet ones
NEIGHBOURS = 5  # pixels over which residuals are averaged before the quiet ones are chosen
CONTRADICTION = 1.5  # variance over the one believed from which on the latter is raised

Covariance = NDArray[np.complex128]


def residual_covariance(kspace: ArrayLike, maps: ArrayLike) -> Covariance | None:
    """Noise covariance from what fully sampled lines hold that no image explains under the maps.

    The component of the coil images orthogonal to the maps has C - S of C parts of the noise and
    none of the object, however a vendor masked the background or filtered the edges of k-space.
    It is looked at in the outer samples of each readout, where errors of the maps count little,
    and in the quieter half of the object.

    Parameters
    ----------
    kspace : (coil, y, x), centred, zero where not sampled.
    maps : (set, coil, y, x).

    Returns
    -------
    (coil, coil), or None where the data do not tell: fewer than 8 lines about DC that are sampled
    to the ends of the readout, or no more coils than sets.
    """
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    sets, coils, ny, nx = mps.shape
    try:
        rows, columns = calibration_extent(ksp)
    except CalibrationError:
        return None
    band = np.abs(np.arange(nx) - nx // 2) >= OUTER * nx / 2
    band[: columns.start] = band[columns.stop :] = False
    if rows.stop - rows.start < 8 or band.sum() < nx / 5 or coils <= sets:
        return None
    block = np.zeros_like(ksp)
    block[:, rows] = ksp[:, rows]
    signal = np.linalg.norm(to_image(block), axis=0)
    inside = signal > OBJECT * np.percentile(signal, 99)
    residual = _unexplained(to_image(block * band), mps)
    power = uniform_filter(np.sum(np.abs(residual) ** 2, axis=0), NEIGHBOURS, mode="wrap")
    if inside.sum() < 8 * coils:
        return None
    quiet = inside & (power <= np.quantile(power[inside], QUIET_SHARE))
    values = residual[:, quiet].astype(np.complex128)
    sampled = (rows.stop - rows.start) * band.sum() / (ny * nx)
    factor = QUIET_BIAS * coils / (coils - sets) / sampled / values.shape[1]
    covariance: Covariance = factor * (values @ values.conj().T)
    return covariance


def raised(covariance: ArrayLike, shown: ArrayLike | None) -> Covariance:
    """The covariance, raised in the directions in which the data show more noise.

    Parameters
    ----------
    covariance, shown : (coil, coil); None shows nothing.

    Returns
    -------
    W^-1 max(W shown W^H, I) W^-H with W the whitening of `covariance`; an eigenvalue that exceeds
    1 by less than half, as chance makes it do, counts as 1.
    """
    believed = np.asarray(covariance, np.complex128)
    if shown is None:
        return believed
    whitening = whitening_matrix(believed) / np.sqrt(2)
    values, vectors = np.linalg.eigh(whitening @ np.asarray(shown) @ whitening.conj().T)
    more = values > CONTRADICTION
    if not more.any():
        return believed
    root = np.linalg.inv(whitening) @ vectors * np.sqrt(np.where(more, values, 1))
    return np.asarray(root @ root.conj().T)


def with_least_level(covariance: ArrayLike, scale: float) -> Covariance:
    """The covariance, or one larger in all directions where it is too small to compute with."""
    believed = np.asarray(covariance, np.complex128)
    sigma = noise_sigma(believed)
    least = LEAST_SIGMA * scale
    return believed if sigma >= least else believed * (least / sigma) ** 2


def _unexplained(coil_images: NDArray[np.complex64], maps: NDArray[np.complex64]) -> NDArray:
    """The part of coil images (coil, y, x) orthogonal to the maps (set, coil, y, x)."""
    left = coil_images
    basis: list[NDArray] = []
    for own in maps:
        direction = own
        for other in basis:
            direction = direction - other * np.sum(other.conj() * direction, axis=0)
        norm = np.linalg.norm(direction, axis=0)
        # the second set fades out where there is none
        direction = np.where(norm > 1e-3, direction / np.where(norm > 1e-3, norm, 1), 0)
        left = left - direction * np.sum(direction.conj() * left, axis=0)
        basis.append(direction)
    return left
