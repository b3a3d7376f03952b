"""Retrospective undersampling of an ISMRMRD scan: lines, flags and header as after a scan."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.gridding import STEPS, Limits, encoding_limits
from scoremri_core.masks import Mask, make_mask
from scoremri_core.scans import NOT_IMAGING, Readable, flag_bits

AXES = {"phase": (0,), "partition": (1,), "both": (0, 1)}  # indices into STEPS

FRAME = ("average", "slice", "contrast", "phase", "repetition", "set")
LOOPS = ("ENCODE_STEP2", "AVERAGE", "SLICE", "CONTRAST", "PHASE", "REPETITION", "SET", "SEGMENT")
CALIBRATION = flag_bits(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
CALIBRATION_AND_IMAGING = flag_bits(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)

# First and last flags as bits, and the counters that the lines they speak of share.
BOUNDARIES: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (
        flag_bits(ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1),
        flag_bits(ismrmrd.ACQ_LAST_IN_ENCODE_STEP1),
        ("kspace_encode_step_2", *FRAME),
    ),
    (
        flag_bits(*(getattr(ismrmrd, f"ACQ_FIRST_IN_{name}") for name in LOOPS)),
        flag_bits(*(getattr(ismrmrd, f"ACQ_LAST_IN_{name}") for name in LOOPS)),
        FRAME,
    ),
    (0, flag_bits(ismrmrd.ACQ_LAST_IN_MEASUREMENT), ()),
)


@dataclass(frozen=True)
class Thinned:
    """The lines of a scan that a mask keeps; iterating reads them with their new flags.

    Attributes
    ----------
    header : the scan's header with its parallel imaging set
    mask : the encode steps kept
    """

    header: Any
    mask: Mask
    _scan: Readable
    _keep: npt.NDArray[np.bool_]
    _flags: npt.NDArray[np.uint64]

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Read the acquisitions that are kept."""
        for acquisition, keep, flags in zip(self._scan, self._keep, self._flags, strict=True):
            if keep:
                acquisition.flags = int(flags)
                yield acquisition


def accelerate(
    scan: Readable,
    kind: str,
    acceleration: float,
    calibration: int,
    axis: str = "phase",
    seed: int = 0,
) -> Thinned:
    """Undersample a fully sampled scan.

    Calibration lines on the imaging pattern are flagged PARALLEL_CALIBRATION_AND_IMAGING, those
    beside it PARALLEL_CALIBRATION; first and last flags of dropped lines move to the nearest line
    that is left. Noise and other readouts that make no image are kept as they are.

    Parameters
    ----------
    scan : fully sampled between the encoding limits
    kind, acceleration, calibration, seed : see `scoremri_core.masks.make_mask`
    axis : encode steps to drop: phase, partition, or both

    Raises
    ------
    InputError
        Where the scan is not fully sampled, or an argument is out of range for it.
    """
    if axis not in AXES:
        raise InputError(f"axis '{axis}': expected one of {', '.join(AXES)}")
    heads = scan.heads()
    imaging = heads["flags"] & np.uint64(flag_bits(*NOT_IMAGING)) == 0
    limits = [encoding_limits(scan.header, step) for step in STEPS]
    _check_fully_sampled(scan.name, heads[imaging], limits)
    axes = AXES[axis]
    if any(limits[i].count == 1 for i in axes):
        raise InputError(f"{scan.name}: axis '{axis}' needs a scan with partitions (3D)")
    mask = make_mask(
        kind,
        [limits[i].count for i in axes],
        acceleration,
        calibration,
        center=[limits[i].center - limits[i].minimum for i in axes],
        seed=seed,
    )
    lines = [heads["idx"][STEPS[i]].astype(int) - limits[i].minimum for i in axes]
    at = tuple(np.where(imaging, line, 0) for line in lines)
    keep = ~imaging | mask.sampled[at]
    flags = heads["flags"] & ~np.uint64(CALIBRATION | CALIBRATION_AND_IMAGING)
    calibrating = imaging & mask.calibration[at]
    flags[calibrating & mask.imaging[at]] |= np.uint64(CALIBRATION_AND_IMAGING)
    flags[calibrating & ~mask.imaging[at]] |= np.uint64(CALIBRATION)
    _move_boundaries(flags, heads["idx"], imaging, keep)
    factors = [1, 1]
    for i, factor in zip(axes, mask.factors, strict=True):
        factors[i] = max(1, round(factor))
    return Thinned(_accelerated_header(scan.header, factors, calibration), mask, scan, keep, flags)


def _check_fully_sampled(name: str, heads: npt.NDArray[Any], limits: list[Limits]) -> None:
    """Refuse a scan in which any frame misses a line between the encoding limits."""
    if not len(heads):
        raise InputError(f"{name}: no imaging lines to choose from")
    frames = np.stack([heads["idx"][counter] for counter in FRAME], axis=-1)
    lines = np.stack([heads["idx"][step].astype(int) for step in STEPS], axis=-1)
    within = all(
        ((line >= limit.minimum) & (line < limit.minimum + limit.count)).all()
        for line, limit in zip(lines.T, limits, strict=True)
    )
    full = limits[0].count * limits[1].count
    for frame in np.unique(frames, axis=0):
        received = len(np.unique(lines[(frames == frame).all(axis=1)], axis=0))
        if received != full or not within:
            raise InputError(
                f"{name}: not fully sampled: slice {frame[FRAME.index('slice')]} has {received} "
                f"lines where its encoding limits span {full}"
            )


def _move_boundaries(
    flags: npt.NDArray[np.uint64],
    counters: npt.NDArray[Any],
    imaging: npt.NDArray[np.bool_],
    keep: npt.NDArray[np.bool_],
) -> None:
    """Move first flags of dropped lines to the next line left, last flags to the one before."""
    for first, last, names in BOUNDARIES:
        keys = np.stack([np.zeros(len(counters)), *(counters[name] for name in names)], axis=-1)
        groups = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
        for group in np.unique(groups[imaging]):
            members = np.flatnonzero(imaging & (groups == group))
            left = members[keep[members]]
            dropped = members[~keep[members]]
            if not len(left):
                continue
            for bits, side in ((first, 0), (last, -1)):
                heirs = left[np.clip(np.searchsorted(left, dropped) + side, 0, len(left) - 1)]
                np.bitwise_or.at(flags, heirs, flags[dropped] & np.uint64(bits))


def _accelerated_header(header: Any, factors: list[int], calibration: int) -> Any:
    header = copy.deepcopy(header)
    mode = xsd.calibrationModeType.EMBEDDED if calibration else xsd.calibrationModeType.OTHER
    header.encoding[0].parallelImaging = xsd.parallelImagingType(
        accelerationFactor=xsd.accelerationFactorType(
            kspace_encoding_step_1=factors[0], kspace_encoding_step_2=factors[1]
        ),
        calibrationMode=mode,
    )
    return header
