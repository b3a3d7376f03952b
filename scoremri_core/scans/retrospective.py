"""Which samples of a fully sampled slice to keep: lines, or samples of both axes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.scans.masks import KINDS, make_mask

BOTH_AXES = "poisson-2d"  # drops samples along the readout too, as a 3D scan seen from its end
MASKS = (*KINDS, BOTH_AXES)

Bools = NDArray[np.bool_]


def kept_samples(
    received: Bools, kind: str, acceleration: float, calibration: int, seed: int = 0
) -> Bools:
    """Undersample a slice (y, x) of which `received` was measured.

    Parameters
    ----------
    kind : one of MASKS
    acceleration : R outside the calibration lines; of both axes that of all samples
    calibration : width of the calibration block on each axis that is undersampled
    seed : of a random mask

    Raises
    ------
    InputError
        As `make_mask`, and where the calibration block alone has more than one sample in R.
    """
    if kind != BOTH_AXES:
        lines = make_mask(kind, received.shape[:1], acceleration, calibration, seed=seed)
        return received & lines.sampled[:, None]
    # drawn within what was received, or samples that are not there would be counted
    rows, columns = (np.flatnonzero(received.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    kept = np.zeros_like(received)
    center = tuple(n // 2 - side.start for n, side in zip(received.shape, box, strict=True))
    kept[box] = _both_axes(kept[box].shape, center, acceleration, calibration, seed)
    return received & kept


@lru_cache(maxsize=8)  # slow to draw, and the same for all slices of a scan
def _both_axes(
    shape: tuple[int, ...],
    center: tuple[int, ...],
    acceleration: float,
    calibration: int,
    seed: int,
) -> Bools:
    """Poisson-disc samples, one in `acceleration` of all with the calibration block among them."""
    size, block = shape[0] * shape[1], calibration**2
    outside = size / acceleration - block
    if outside < 1:
        raise InputError(
            f"acceleration {acceleration:g}: one in {acceleration:g} of {shape[0]} x {shape[1]} "
            f"samples are fewer than the {calibration} x {calibration} of the calibration block"
        )
    rest = (size - block) / outside
    return make_mask("poisson", shape, rest, calibration, center=center, seed=seed).sampled
