"""Which part of k-space a scan reaches, and which no sample is near."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter, minimum_filter

FULL = 0.7  # of the matrix: lines drawn at random reach nearly that far and need no other grid
GAP = 25  # samples: wider gaps are not undersampling


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


def unacquired(mask: NDArray[np.bool_]) -> float:
    """Share of the matrix (y, x) in which no sample is near, as partial Fourier leaves it."""
    size = [min(GAP, n) for n in mask.shape]
    near = maximum_filter(mask, size, mode="nearest")
    return float(1 - minimum_filter(near, size, mode="nearest").mean())


def _even(least: int) -> int:
    size = next_fast_len(least)
    while size % 2:
        size = next_fast_len(size + 1)
    return size
