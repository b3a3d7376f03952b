"""Conformal risk control: factors that stretch intervals until they hold on new frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.score.metrics import head_mask

LEVEL = 0.9  # of the intervals
BOUND = 0.3  # most that the risk of a frame counts
REGIONS = 4  # of the object, by the width of the intervals

Floats = NDArray[np.floating[Any]]


def regions_of(magnitude: Floats, half_width: Floats) -> NDArray[np.int64]:
    """Divide the object into parts of equal size, by increasing width of the intervals.

    The parts depend on the frame only, which keeps frames exchangeable.

    Parameters
    ----------
    magnitude : float array, (y, x)
        Posterior mean; its object is that of `head_mask`.
    half_width : float array, (y, x)

    Returns
    -------
    int array, (y, x)
        1 to REGIONS; 0 outside of the object.
    """
    inside = head_mask(magnitude)
    widths = half_width[inside]
    ranks = np.empty(len(widths), np.int64)
    ranks[np.argsort(widths, kind="stable")] = np.arange(len(widths))
    regions = np.zeros(magnitude.shape, np.int64)
    regions[inside] = 1 + ranks * REGIONS // max(len(widths), 1)
    return regions


def ratios_of(error: Floats, half_width: Floats, regions: NDArray[np.int64]) -> list[Floats]:
    """Return the factors that the interval of each pixel needs to hold, by region.

    Parameters
    ----------
    error, half_width : float array, (y, x)
    regions : int array, (y, x)
        See `regions_of`.

    Returns
    -------
    list of float array, (pixel,)
        Sorted, one array per region.
    """
    error, width = np.abs(error).astype(np.float64), half_width.astype(np.float64)
    needed = np.where(error > 0, np.inf, 0.0)
    np.divide(error, width, out=needed, where=width > 0)
    return [np.sort(needed[regions == region]) for region in range(1, REGIONS + 1)]


def stretch_factor(frames: Sequence[Floats], level: float = LEVEL, bound: float = BOUND) -> float:
    """Return the least factor with which the intervals of a region hold on new frames.

    The risk R_i(c) of frame i is the fraction of pixels that need a factor above c, at most
    `bound`. The factor is the least c with (sum_i R_i(c) + bound) / (n + 1) <= 1 - level [1]_. If
    frames are exchangeable, the expected risk of a new frame is at most 1 - level, and at least
    1 - level - 2 bound / (n + 1) if the ratios have no ties.

    Parameters
    ----------
    frames : sequence of float array, (pixel,)
        Sorted ratios of error and half width, for each frame.
    level : float
        Probability of the intervals.
    bound : float
        Most that the risk of a frame counts. 1 - level: no correction for the number of frames.

    Returns
    -------
    float
        Infinite if no finite factor is enough.

    References
    ----------
    .. [1] Angelopoulos AN, Bates S, Fisch A, Lei L, Schuster T. Conformal risk control. ICLR
       (2024), arXiv:2208.02814.
    """
    present = [ratios for ratios in frames if len(ratios)]
    candidates = np.unique(np.concatenate([np.zeros(1), *present]))

    def enough(factor: float) -> bool:
        risks = [1 - np.searchsorted(r, factor, side="right") / len(r) for r in present]
        total = np.minimum(risks, bound).sum() + bound
        return bool(total <= (1 - level) * (len(present) + 1) + 1e-12)

    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if enough(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return float(candidates[low]) if low < len(candidates) else float("inf")
