"""Which part of k-space a scan reaches, and which no sample is near."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter, minimum_filter

from scoremri_core.mri.fourier import resample, resize

FULL = 0.7  # of the matrix: lines drawn at random reach nearly that far and need no other grid
GAP = 25  # samples: wider gaps are not undersampling

Array = NDArray[np.complex64]


def measured(kspace: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which samples (...) of k-space (coil, ...) were measured: those of `mask`, if given.

    Without a mask those that are not zero in every coil.
    """
    if mask is not None:
        return np.asarray(mask, bool)
    return np.asarray((kspace != 0).any(axis=0))


def sampled_box(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Shape of the smallest grid about DC that holds all samples of a mask (y, x).

    What lies outside was never measured: a prior would invent it.
    """
    sides = []
    for axis, n in enumerate(mask.shape):
        reached = np.flatnonzero(mask.any(axis=1 - axis)) - n // 2
        size = n if not len(reached) else _even(2 * int(np.abs(reached).max()) + 1)
        sides.append(size if size < FULL * n else n)
    return sides[0], sides[1]


def unsampled_fraction(mask: NDArray[np.bool_]) -> float:
    """Share of the matrix (y, x) in which no sample is near, as partial Fourier leaves it."""
    size = [min(GAP, n) for n in mask.shape]
    near = maximum_filter(mask, size, mode="nearest")
    return float(1 - minimum_filter(near, size, mode="nearest").mean())


class Box:
    """The grid that a scan's samples reach, on which its image is sampled and then interpolated.

    Parameters
    ----------
    mask : samples (y, x) of the image's own grid.

    Attributes
    ----------
    full, shape : (y, x) of the image's grid, and of the box.
    factor : value of a pixel on the box over that on the image's grid, of orthonormal transforms.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.full = mask.shape
        self.shape = sampled_box(mask)
        self.factor = float(np.sqrt(np.prod(self.full) / np.prod(self.shape)))
        self._same = tuple(self.full) == self.shape

    def kspace(self, full: Array) -> Array:
        """K-space (..., y, x) without what lies outside of the box."""
        return full if self._same else np.ascontiguousarray(resize(full, self.shape))

    def maps(self, full: Array) -> Array:
        """Maps (set, coil, y, x) on the box."""
        return full if self._same else _of_unit_norm(resample(full, self.shape), full)

    def image(self, small: Array) -> Array:
        """Images (..., y, x) of the box on the image's grid."""
        return small if self._same else resample(small, self.full) / np.float32(self.factor)

    def full_maps(self, small: Array) -> Array:
        """Maps (set, coil, y, x) of the box on the image's grid."""
        return small if self._same else _of_unit_norm(resample(small, self.full), small)


def _of_unit_norm(maps: Array, like: Array) -> Array:
    """Interpolated maps, of norm 1 over the coils where those before were."""
    if np.allclose(np.linalg.norm(like, axis=1), 1, atol=1e-3):
        maps = maps / np.maximum(np.linalg.norm(maps, axis=1, keepdims=True), 1e-6)
    return np.asarray(maps, np.complex64)


def _even(least: int) -> int:
    size = next_fast_len(least)
    while size % 2:
        size = next_fast_len(size + 1)
    return size
