"""Measured samples of k-space: mask, extent and unsampled regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter, minimum_filter

from scoremri_core.mri.fourier import resample, resize

FULL = 0.7  # of the matrix; larger boxes are extended to it, as for random undersampling
GAP = 25  # samples; wider gaps are unsampled regions, not undersampling

Array = NDArray[np.complex64]


def measured(kspace: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return the mask of measured samples.

    Parameters
    ----------
    kspace : complex array, (coil, ...)
    mask : bool array, (...), optional
        Returned as it is. Default: samples that are not zero in every coil.

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
        """Crop k-space (..., y, x) to the box."""
        return full if self._same else np.ascontiguousarray(resize(full, self.shape))

    def maps(self, full: Array) -> Array:
        """Interpolate coil maps (set, coil, y, x) to the box."""
        return full if self._same else _of_unit_norm(resample(full, self.shape), full)

    def image(self, small: Array) -> Array:
        """Interpolate images (..., y, x) of the box to the image matrix."""
        return small if self._same else resample(small, self.full) / np.float32(self.factor)

    def full_maps(self, small: Array) -> Array:
        """Interpolate coil maps (set, coil, y, x) of the box to the image matrix."""
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
