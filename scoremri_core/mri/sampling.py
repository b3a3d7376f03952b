"""Measured samples of k-space: mask, extent, calibration region and unsampled regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter, minimum_filter

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.fourier import resample, resize

FULL = 0.7  # of the matrix; larger boxes are extended to it, as for random undersampling
MAX_CALIBRATION = 32  # samples used per axis; more hardly change coil maps
MIN_CALIBRATION = 4  # samples per axis
GAP = 25  # samples; wider gaps are unsampled regions, not undersampling

Array = NDArray[np.complex64]


def measured(kspace: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return the mask of measured samples.

    Parameters
    ----------
    kspace : complex array, (coil, ...)
    mask : bool array, (...), optional
        Returned unchanged. Default: samples that are not zero in every coil.

    Returns
    -------
    bool array, (...)
    """
    if mask is not None:
        return np.asarray(mask, bool)
    return np.asarray((kspace != 0).any(axis=0))


def sampled_box(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the shape of the smallest grid around DC that holds all measured samples.

    Parameters
    ----------
    mask : bool array, (y, x)

    Returns
    -------
    tuple of int, (y, x)
        Even sizes with fast FFTs, or that of the mask if the box is almost as large.
    """
    sides = []
    for axis, n in enumerate(mask.shape):
        reached = np.flatnonzero(mask.any(axis=1 - axis)) - n // 2
        size = n if not len(reached) else _even(2 * int(np.abs(reached).max()) + 1)
        sides.append(size if size < FULL * n else n)
    return sides[0], sides[1]


def unsampled_fraction(mask: NDArray[np.bool_]) -> float:
    """Return the fraction of k-space far from any sample, as in partial Fourier.

    Parameters
    ----------
    mask : bool array, (y, x)

    Returns
    -------
    float
    """
    size = [min(GAP, n) for n in mask.shape]
    near = maximum_filter(mask, size, mode="nearest")
    return float(1 - minimum_filter(near, size, mode="nearest").mean())


def calibration_extent(sampled: NDArray[Any]) -> tuple[slice, slice]:
    """Find the calibration region: the fully sampled block around DC.

    The largest block with each side limited to 32 samples, then the largest without limit. Lost
    samples (see `lost_samples`) do not interrupt it.

    Parameters
    ----------
    sampled : bool array, (y, x), or complex array, (coil, y, x)
        Mask, or centred k-space with zeros where not sampled.

    Returns
    -------
    rows : slice
    columns : slice

    Raises
    ------
    CalibrationError
        DC was not sampled, or fewer than 4 x 4 samples around it.
    """
    array = np.asarray(sampled)
    mask = measured(array) if array.ndim == 3 else array.astype(bool)
    mask = mask | lost_samples(mask)
    ny, nx = mask.shape
    cy, cx = ny // 2, nx // 2
    if not mask[cy, cx]:
        raise CalibrationError("no calibration lines: the centre of k-space is not sampled")
    # per row, the run of samples around the DC column; empty rows end the block
    left = cx - np.argmin(np.pad(mask[:, cx::-1], ((0, 0), (0, 1))), axis=1) + 1
    right = cx + np.argmin(np.pad(mask[:, cx:], ((0, 0), (0, 1))), axis=1)
    up = np.maximum.accumulate(left[cy::-1]), np.minimum.accumulate(right[cy::-1])
    down = np.maximum.accumulate(left[cy:]), np.minimum.accumulate(right[cy:])
    starts = np.maximum(up[0][:, None], down[0])
    stops = np.minimum(up[1][:, None], down[1])
    width = np.maximum(stops - starts, 0)
    height = np.arange(len(up[0]))[:, None] + np.arange(len(down[0])) + 1
    worth = np.minimum(height, MAX_CALIBRATION) * np.minimum(width, MAX_CALIBRATION)
    best = np.argmax(worth * float(2 * ny * nx) + height * width)
    above, below = np.unravel_index(best, worth.shape)
    rows = slice(int(cy - above), int(cy + below + 1))
    columns = slice(int(starts[above, below]), int(stops[above, below]))
    size = tuple(s.stop - s.start for s in (rows, columns))
    if min(size) < MIN_CALIBRATION:
        raise CalibrationError(
            f"no calibration lines: {size[0]} x {size[1]} samples around the centre of k-space, "
            f"expected at least {MIN_CALIBRATION} x {MIN_CALIBRATION}"
        )
    return rows, columns


def lost_samples(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find unmeasured samples with two measured neighbours on either side along y.

    Discarded readouts cause them, undersampling patterns do not.

    Parameters
    ----------
    mask : bool array, (y, x)

    Returns
    -------
    bool array, (y, x)
    """
    sampled = np.pad(mask, ((2, 2), (0, 0)))
    return ~mask & sampled[:-4] & sampled[1:-3] & sampled[3:-1] & sampled[4:]


class Box:
    """Conversion between the image matrix and the smallest grid that holds all samples.

    Parameters
    ----------
    mask : bool array, (y, x)
        Measured samples on the image matrix.

    Attributes
    ----------
    full : tuple of int, (y, x)
        Image matrix.
    shape : tuple of int, (y, x)
        Grid of the box.
    factor : float
        Pixel value on the box over that on the image matrix, for orthonormal transforms.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.full = mask.shape
        self.shape = sampled_box(mask)
        self.factor = float(np.sqrt(np.prod(self.full) / np.prod(self.shape)))
        self._same = tuple(self.full) == self.shape

    def kspace(self, full: Array) -> Array:
        """Crop k-space to the box.

        Parameters
        ----------
        full : complex array, (..., y, x)

        Returns
        -------
        complex array, (..., y, x)
        """
        return full if self._same else np.ascontiguousarray(resize(full, self.shape))

    def maps(self, full: Array) -> Array:
        """Interpolate coil maps to the box.

        Parameters
        ----------
        full : complex64 array, (set, coil, y, x)

        Returns
        -------
        complex64 array, (set, coil, y, x)
        """
        return full if self._same else _of_unit_norm(resample(full, self.shape), full)

    def image(self, small: Array) -> Array:
        """Interpolate images of the box to the image matrix.

        Parameters
        ----------
        small : complex array, (..., y, x)

        Returns
        -------
        complex array, (..., y, x)
        """
        return small if self._same else resample(small, self.full) / np.float32(self.factor)

    def full_maps(self, small: Array) -> Array:
        """Interpolate coil maps of the box to the image matrix.

        Parameters
        ----------
        small : complex64 array, (set, coil, y, x)

        Returns
        -------
        complex64 array, (set, coil, y, x)
        """
        return small if self._same else _of_unit_norm(resample(small, self.full), small)


def _of_unit_norm(maps: Array, like: Array) -> Array:
    """Normalise interpolated maps (set, coil, y, x) over the coils if `like` is normalised."""
    if np.allclose(np.linalg.norm(like, axis=1), 1, atol=1e-3):
        maps = maps / np.maximum(np.linalg.norm(maps, axis=1, keepdims=True), 1e-6)
    return np.asarray(maps, np.complex64)


def _even(least: int) -> int:
    size = next_fast_len(least)
    while size % 2:
        size = next_fast_len(size + 1)
    return size
