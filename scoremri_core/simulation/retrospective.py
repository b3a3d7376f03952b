"""Retrospective undersampling of a slice: lines, columns, or samples of both axes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.simulation.masks import KINDS, calibration_region, calibration_width, make_mask

BOTH_AXES = "poisson-2d"  # poisson along both axes, R is the true acceleration
MASKS = (*KINDS, BOTH_AXES)
# undersampled axis: phase encoding, readout, or both, as in a 3D scan viewed along its readout
AXES = ("phase", "readout", "both")

Bools = NDArray[np.bool_]


def kept_samples(
    received: Bools,
    kind: str,
    acceleration: float,
    calibration: int | str,
    seed: int = 0,
    axis: str = AXES[0],
    true: bool = False,
) -> Bools:
    """Choose the samples of a slice to keep.

    Parameters
    ----------
    received : bool array, (y, x)
        Sampled positions of the slice.
    kind : str
        One of MASKS.
    acceleration : float
        R outside of the calibration block; the true acceleration if `true` or for both axes.
    calibration : int or str
        Width of the calibration block on the undersampled axes, or its share, such as "8%".
    seed : int, optional
        Of a random mask.
    axis : str, optional
        One of AXES.
    true : bool, optional
        See `make_mask`.

    Returns
    -------
    bool array, (y, x)

    Raises
    ------
    InputError
        Unknown axis, and as `make_mask`.
    """
    if axis not in AXES:
        raise InputError(f"axis '{axis}': expected one of {', '.join(AXES)}")
    if kind == BOTH_AXES:
        kind, axis = "poisson", "both"
    true = true or axis == "both"
    # the true acceleration refers to the sampled range
    box = tuple(_extent(np.any(received, axis=1 - i), true) for i in range(2))
    chosen = slice(0, 2) if axis == "both" else slice(AXES.index(axis), AXES.index(axis) + 1)
    shape = tuple(side.stop - side.start for side in box[chosen])
    center = tuple(
        n // 2 - side.start for n, side in zip(received.shape[chosen], box[chosen], strict=True)
    )
    width = calibration_width(calibration, shape[0])
    drawn = _draw(kind, shape, acceleration, width, center, seed, true)
    kept = np.zeros_like(received)
    kept[box] = drawn[:, None] if axis == AXES[0] else drawn
    return received & kept


def calibration_lines(shape: tuple[int, ...], calibration: int | str, axis: str) -> Bools:
    """Return the calibration lines of a slice.

    Parameters
    ----------
    shape : tuple of int, (y, x)
    calibration : int or str
        See `kept_samples`.
    axis : str
        One of AXES.

    Returns
    -------
    bool array, (y, 1), or (1, x) along the readout
    """
    count = shape[axis == "readout"]
    region = calibration_region((count,), calibration_width(calibration, count), (count // 2,))
    return region[None, :] if axis == "readout" else region[:, None]


def _extent(received: Any, within: bool) -> slice:
    steps = np.flatnonzero(received)
    return slice(steps[0], steps[-1] + 1) if within else slice(0, len(received))


@lru_cache(maxsize=8)  # slow to draw, equal for all slices of a scan
def _draw(
    kind: str,
    shape: tuple[int, ...],
    acceleration: float,
    calibration: int,
    center: tuple[int, ...],
    seed: int,
    true: bool,
) -> Bools:
    mask = make_mask(kind, shape, acceleration, calibration, center=center, seed=seed, true=true)
    return mask.sampled
