"""Which samples of a fully sampled slice to keep: lines, columns, or samples of both axes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.simulation.masks import KINDS, calibration_region, calibration_width, make_mask

BOTH_AXES = "poisson-2d"  # short for poisson along both axes, R counted with the calibration
MASKS = (*KINDS, BOTH_AXES)
# along which samples are left out: the lines of the scan, the readout, or both, as a 3D scan is
# seen from the end of its readouts
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
    """Undersample a slice (y, x) of which `received` was measured.

    Parameters
    ----------
    kind : one of MASKS
    acceleration : R outside the calibration lines; with `true`, or of both axes, that of all
    calibration : width of the calibration block on each axis that is undersampled, or its share of
        the samples there, such as "8%"
    seed : of a random mask
    axis : one of AXES
    true : see `make_mask`

    Raises
    ------
    InputError
        As `make_mask`, and for an axis that is not known.
    """
    if axis not in AXES:
        raise InputError(f"axis '{axis}': expected one of {', '.join(AXES)}")
    if kind == BOTH_AXES:
        kind, axis = "poisson", "both"
    true = true or axis == "both"
    # counted within what was received, where all samples count
    box = tuple(_extent(np.any(received, axis=1 - i), true) for i in range(2))
    chosen = slice(0, 2) if axis == "both" else slice(AXES.index(axis), AXES.index(axis) + 1)
    shape = tuple(side.stop - side.start for side in box[chosen])
    center = tuple(
        n // 2 - side.start for n, side in zip(received.shape[chosen], box[chosen], strict=True)
    )
    width = calibration_width(calibration, shape[0])
    drawn = _drawn(kind, shape, acceleration, width, center, seed, true)
    kept = np.zeros_like(received)
    kept[box] = drawn[:, None] if axis == AXES[0] else drawn
    return received & kept


def calibration_lines(shape: tuple[int, ...], calibration: int | str, axis: str) -> Bools:
    """The calibration lines, (y, 1), or columns, (1, x), of a slice of shape (y, x)."""
    count = shape[axis == "readout"]
    region = calibration_region((count,), calibration_width(calibration, count), (count // 2,))
    return region[None, :] if axis == "readout" else region[:, None]


def _extent(received: Any, within: bool) -> slice:
    steps = np.flatnonzero(received)
    return slice(steps[0], steps[-1] + 1) if within else slice(0, len(received))


@lru_cache(maxsize=8)  # slow to draw, and the same for all slices of a scan
def _drawn(
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
