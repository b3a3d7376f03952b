"""Retrospective undersampling of an ISMRMRD scan: lines, flags and header as from a scanner."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.scans.encoding import Limits, encoding_limits
from scoremri_core.scans.files import Readable
from scoremri_core.scans.flags import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    COUNTERS_AND_AVERAGE,
    LAST_IN_SLICE,
    REVERSE,
    STEPS,
    flag_bits,
    imaging_lines,
)
from scoremri_core.simulation.masks import CALIBRATION_MODES, Mask, make_mask

AXES = {"phase": (0,), "partition": (1,), "both": (0, 1)}  # indices into STEPS

LOOPS = ("ENCODE_STEP2", "AVERAGE", "SLICE", "CONTRAST", "PHASE", "REPETITION", "SET", "SEGMENT")

# Masks of first and last flags, and the counters that are equal between them.
BOUNDARIES: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (
        flag_bits(ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1),
        flag_bits(ismrmrd.ACQ_LAST_IN_ENCODE_STEP1),
        ("kspace_encode_step_2", *COUNTERS_AND_AVERAGE),
    ),
    (
        flag_bits(*(getattr(ismrmrd, f"ACQ_FIRST_IN_{name}") for name in LOOPS)),
        flag_bits(*(getattr(ismrmrd, f"ACQ_LAST_IN_{name}") for name in LOOPS)),
        COUNTERS_AND_AVERAGE,
    ),
    (0, flag_bits(ismrmrd.ACQ_LAST_IN_MEASUREMENT), ()),
)


FIRST_OF = COUNTERS_AND_AVERAGE[1:]  # a reference scan is of their first values


@dataclass(frozen=True)
class UndersampledScan:
    """Undersampled scan; iteration reads the lines of the mask with updated flags.

    Attributes
    ----------
    header : ismrmrdHeader
        With `parallelImaging`.
    mask : Mask
    """

    header: xsd.ismrmrdHeader
    mask: Mask
    _scan: Readable
    _keep: npt.NDArray[np.bool_]
    _flags: npt.NDArray[np.uint64]
    _imaging: npt.NDArray[np.bool_]
    _echo: float = 1.0
    _reference: Reference | None = None

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions that are kept."""
        pending = self._reference is not None
        rows = zip(self._scan, self._keep, self._flags, self._imaging, strict=True)
        for acquisition, keep, flags, imaging in rows:
            if pending and imaging and self._reference and not self._reference.last:
                pending = False
                yield from self._calibration()
            if keep:
                acquisition.flags = int(flags)
                yield partial_echo(acquisition, self._echo) if imaging else acquisition
        if pending:
            yield from self._calibration()

    def _calibration(self) -> Iterator[ismrmrd.Acquisition]:
        assert self._reference is not None
        for acquisition, flags in zip(self._scan, self._reference.flags, strict=True):
            if flags:
                acquisition.flags = int(flags)
                for step, first in zip(STEPS, self._reference.shift, strict=True):
                    setattr(acquisition.idx, step, getattr(acquisition.idx, step) - first)
                acquisition.encoding_space_ref = self._reference.space
                yield acquisition


@dataclass(frozen=True)
class Reference:
    """Separate reference scan.

    Attributes
    ----------
    flags : uint64 array, (acquisition,)
        Of the reference lines; 0: not a reference line.
    space : int
        Encoding space of the lines.
    shift : tuple of int
        Encode steps 1 and 2 that become 0.
    last : bool
        Whether it follows the imaging lines.
    """

    flags: npt.NDArray[np.uint64]
    space: int
    shift: tuple[int, int]
    last: bool


def accelerate(
    scan: Readable,
    kind: str,
    acceleration: float,
    calibration: int,
    axis: str = "phase",
    seed: int = 0,
    *,
    calibration_mode: str = "embedded",
    calibration_last: bool = False,
    partial_fourier: float = 1.0,
    echo: float = 1.0,
) -> UndersampledScan:
    """Undersample a fully sampled scan.

    Calibration lines of the imaging pattern are flagged PARALLEL_CALIBRATION_AND_IMAGING, others
    PARALLEL_CALIBRATION. First and last flags of dropped lines move to the nearest remaining line.
    Noise and other non-imaging readouts are kept.

    Parameters
    ----------
    scan : Readable
        Fully sampled within the encoding limits.
    kind : str
        See `scoremri_core.simulation.masks.make_mask`, as for the next two.
    acceleration : float
    calibration : int
    axis : {"phase", "partition", "both"}, optional
        Undersampled encode steps.
    seed : int, optional
    calibration_mode : {"embedded", "separate", "external"}, optional
        "separate": reference scan of each slice, of the first repetition (contrast, phase, set,
        average). "external": the same with a separate encoding space.
    calibration_last : bool, optional
        Whether the reference scan follows the imaging lines.
    partial_fourier : float, optional
        Fraction of the phase-encode lines to keep, of the last ones.
    echo : float, optional
        Fraction of the samples of each readout to keep, of the last ones.

    Returns
    -------
    UndersampledScan

    Raises
    ------
    InputError
        The scan is not fully sampled, or an argument is out of range.
    """
    if axis not in AXES:
        raise InputError(f"axis '{axis}': expected one of {', '.join(AXES)}")
    if calibration_mode not in CALIBRATION_MODES:
        known = ", ".join(CALIBRATION_MODES)
        raise InputError(f"calibration mode '{calibration_mode}': expected one of {known}")
    if calibration_mode == "embedded" and calibration_last:
        raise InputError("calibration last: expected calibration mode separate or external")
    if calibration_mode != "embedded" and not calibration:
        raise InputError(f"calibration 0: a {calibration_mode} reference scan needs lines")
    if not 0.5 < echo <= 1:
        raise InputError(f"partial echo {echo:g}: expected more than 0.5, at most 1")
    heads = scan.heads()
    imaging = imaging_lines(heads)
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
    steps = tuple(np.where(imaging, line, 0) for line in lines)
    first = _first_line(partial_fourier, limits[0], calibration if 0 in axes else 0)
    acquired_lines = heads["idx"][STEPS[0]] >= first
    embedded = calibration_mode == "embedded"
    keep = ~imaging | ((mask.sampled if embedded else mask.imaging)[steps] & acquired_lines)
    flags = heads["flags"] & ~np.uint64(CALIBRATION | CALIBRATION_AND_IMAGING)
    calibrating = imaging & mask.calibration[steps]
    reference = None
    if embedded:
        flags[calibrating & mask.imaging[steps]] |= np.uint64(CALIBRATION_AND_IMAGING)
        flags[calibrating & ~mask.imaging[steps]] |= np.uint64(CALIBRATION)
    else:
        external = calibration_mode == "external"
        starts = [limits[i].center - calibration // 2 if i in axes else 0 for i in (0, 1)]
        reference = Reference(
            _reference_flags(heads, calibrating),
            int(external),
            (starts[0], starts[1]) if external else (0, 0),
            calibration_last,
        )
    _move_boundaries(flags, heads["idx"], imaging, keep)
    factors = [1, 1]
    for i, factor in zip(axes, mask.factors, strict=True):
        factors[i] = max(1, round(factor))
    header = _accelerated_header(scan.header, factors, calibration_mode if calibration else "other")
    if header.encoding[0].encodingLimits.kspace_encoding_step_1 is not None:
        header.encoding[0].encodingLimits.kspace_encoding_step_1.minimum = first
    if calibration_mode == "external":
        header.encoding.append(_calibration_encoding(scan.header, limits, axes, calibration))
    if first > limits[0].minimum and 0 in axes:
        rows = np.arange(limits[0].count) + limits[0].minimum >= first
        acquired = mask.imaging & (rows if len(axes) == 1 else rows[:, None])
        mask = replace(mask, imaging=acquired)
    return UndersampledScan(header, mask, scan, keep, flags, imaging, echo, reference)


def partial_echo(acquisition: ismrmrd.Acquisition, share: float) -> ismrmrd.Acquisition:
    """Drop the first samples of k-space, as in a partial-echo acquisition.

    Parameters
    ----------
    acquisition : ismrmrd.Acquisition
    share : float
        Fraction of the samples to keep.

    Returns
    -------
    ismrmrd.Acquisition
    """
    if share == 1:
        return acquisition
    head, data = acquisition.getHead(), acquisition.data
    samples = data.shape[1]
    cut = samples - round(share * samples)
    head.number_of_samples = samples - cut
    if acquisition.flags & REVERSE:
        # reversed: the end of the readout is missing
        data = data[:, : samples - cut]
        head.center_sample = head.center_sample or samples // 2
        head.discard_post = max(0, head.discard_post - cut)
    else:
        data = data[:, cut:]
        head.center_sample = (head.center_sample or samples // 2) - cut
        head.discard_pre = max(0, head.discard_pre - cut)
    return ismrmrd.Acquisition(head, np.ascontiguousarray(data))


def _first_line(share: float, limits: Limits, calibration: int) -> int:
    """Return the first phase-encode line of a partial Fourier scan."""
    first = limits.minimum + limits.count - round(share * limits.count)
    latest = limits.center - calibration // 2
    if not (0 < share <= 1 and first <= latest):
        raise InputError(
            f"partial fourier {share:g}: expected at most 1, and to keep the lines from {latest} "
            f"on, of {limits.minimum} to {limits.minimum + limits.count - 1}"
        )
    return first


def _reference_flags(
    heads: npt.NDArray[Any], calibrating: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint64]:
    """Return the flags of the lines of a reference scan, 0 elsewhere."""
    chosen = calibrating.copy()
    for counter in FIRST_OF:
        values = heads["idx"][counter]
        chosen &= values == values[calibrating].min(initial=65535)
    kept = np.uint64(REVERSE)
    flags = np.where(chosen, (heads["flags"] & kept) | np.uint64(CALIBRATION), np.uint64(0))
    slices = heads["idx"]["slice"]
    for number in np.unique(slices[chosen]):
        flags[np.flatnonzero(chosen & (slices == number))[-1]] |= np.uint64(LAST_IN_SLICE)
    return flags


def _check_fully_sampled(name: str, heads: npt.NDArray[Any], limits: list[Limits]) -> None:
    """Raise InputError if a frame lacks a line within the encoding limits."""
    if not len(heads):
        raise InputError(f"{name}: no imaging lines")
    frames = np.stack([heads["idx"][counter] for counter in COUNTERS_AND_AVERAGE], axis=-1)
    lines = np.stack([heads["idx"][step].astype(int) for step in STEPS], axis=-1)
    within = all(
        ((line >= limit.minimum) & (line < limit.minimum + limit.count)).all()
        for line, limit in zip(lines.T, limits, strict=True)
    )
    full = limits[0].count * limits[1].count
    for frame in np.unique(frames, axis=0):
        received = len(np.unique(lines[(frames == frame).all(axis=1)], axis=0))
        if not within:
            raise InputError(f"{name}: not fully sampled: lines outside of the encoding limits")
        if received != full:
            raise InputError(
                f"{name}: not fully sampled: slice {frame[COUNTERS_AND_AVERAGE.index('slice')]} "
                f"has {received} lines, its encoding limits span {full}"
            )


def _move_boundaries(
    flags: npt.NDArray[np.uint64],
    counters: npt.NDArray[Any],
    imaging: npt.NDArray[np.bool_],
    keep: npt.NDArray[np.bool_],
) -> None:
    """Move first flags of dropped lines to the next remaining line, last flags to the previous."""
    for first, last, names in BOUNDARIES:
        keys = np.stack([np.zeros(len(counters)), *(counters[name] for name in names)], axis=-1)
        groups = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
        for group in np.unique(groups[imaging]):
            members = np.flatnonzero(imaging & (groups == group))
            remaining = members[keep[members]]
            dropped = members[~keep[members]]
            if not len(remaining):
                continue
            for bits, side in ((first, 0), (last, -1)):
                at = np.searchsorted(remaining, dropped) + side
                heirs = remaining[np.clip(at, 0, len(remaining) - 1)]
                np.bitwise_or.at(flags, heirs, flags[dropped] & np.uint64(bits))


def _accelerated_header(
    header: xsd.ismrmrdHeader, factors: list[int], mode: str
) -> xsd.ismrmrdHeader:
    header = copy.deepcopy(header)
    header.encoding[0].parallelImaging = xsd.parallelImagingType(
        accelerationFactor=xsd.accelerationFactorType(
            kspace_encoding_step_1=factors[0], kspace_encoding_step_2=factors[1]
        ),
        calibrationMode=xsd.calibrationModeType(mode),
    )
    return header


def _calibration_encoding(
    header: xsd.ismrmrdHeader, limits: list[Limits], axes: tuple[int, ...], calibration: int
) -> xsd.encodingType:
    """Return the encoding space of the calibration block, with the same field of view."""
    encoding = copy.deepcopy(header.encoding[0])
    encoding.parallelImaging = None
    for i, (step, side) in enumerate(zip(STEPS, "yz", strict=True)):
        if i in axes:
            limit = xsd.limitType(minimum=0, maximum=calibration - 1, center=calibration // 2)
            setattr(encoding.encodingLimits, step.replace("encode", "encoding"), limit)
            setattr(encoding.encodedSpace.matrixSize, side, calibration)
            setattr(encoding.reconSpace.matrixSize, side, calibration)
    return encoding
