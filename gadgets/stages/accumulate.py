"""Acquisitions to frames: what is imaging, what is calibration, and when a frame is complete."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ismrmrd

from gadgets.stages.calibration import CalibrationStore
from gadgets.stages.frame import Frame
from gadgets.stages.header_check import HeaderCheck
from gadgets.stages.noise_scan import NoiseScan
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.encoding import Encoding, Readout, encodings, numbered
from scoremri_core.scans.flags import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    COUNTERS,
    LAST_IN_SLICE,
    LAST_OF_ALL,
    NO_IMAGE,
    NOISE,
)
from scoremri_core.scans.gridding import assemble
from scoremri_core.scans.sorting import ImageLines, sort_readouts

logger = logging.getLogger(__name__)

REFERENCE_MODES = ("separate", "external")  # calibration modes with a scan of its own
WAITING = 16  # frames that wait for a reference scan which has not come yet


class Key(NamedTuple):
    """What the readouts of a frame have in common: the encoding space, and the `COUNTERS`."""

    space: int
    slice: int
    contrast: int
    phase: int
    repetition: int
    set: int

    @classmethod
    def of(cls, head: Any) -> Key:
        """Key of an acquisition header."""
        return cls(head.encoding_space_ref, *(getattr(head.idx, name) for name in COUNTERS))


@dataclass
class Lines:
    """The readouts of a frame so far; `begun` and `grown` number the first and last of them."""

    begun: int
    before: Key | None  # the frame of an earlier repetition that was open then
    late: int  # lines of the frame of this or a later repetition that was complete then
    grown: int = 0
    readouts: list[Readout] = field(default_factory=list)

    @property
    def imaging(self) -> bool:
        """Whether there is more than calibration lines."""
        flags = (readout.header.flags for readout in self.readouts)
        return any(f & CALIBRATION_AND_IMAGING or not f & CALIBRATION for f in flags)


def accumulate(items: Iterable[Any], header: Any, properties: Properties) -> Iterator[Any]:
    """Frames from a stream of acquisitions; anything else in the stream passes on.

    Parameters
    ----------
    items : acquisitions, and whatever else the stream holds.
    header : the ISMRMRD header.
    properties : of the node.

    Yields
    ------
    Frame
        As each is complete, and at the end of the stream whatever has imaging lines.

    Raises
    ------
    InputError
        Where the header describes no Cartesian encoding.
    """
    sorter = FrameSorter(header, properties)
    for item in items:
        if not isinstance(item, ismrmrd.Acquisition):
            yield item
        elif item.flags & NOISE:
            sorter.noise.add(item)
        elif item.flags & NO_IMAGE:
            sorter.declared.skip(item.flags)
        else:
            yield from sorter.add(Readout.of(item))
    yield from sorter.finish()


class FrameSorter:
    """Sorts readouts into frames by encoding space, slice, contrast, phase, repetition and set.

    A frame is complete with its last-in-slice, last-in-repetition or last-in-measurement flag;
    without one, once the same slice of a later repetition has as many lines.
    """

    def __init__(self, header: Any, properties: Properties, oversampled: bool = True) -> None:
        """Start a stream; `oversampled` is False where readout oversampling is gone already."""
        spaces = encodings(header)
        self.encodings = spaces if oversampled else [s.without_oversampling() for s in spaces]
        self.noise = NoiseScan(header, properties)
        self.declared = HeaderCheck(header)
        self._calibrations = CalibrationStore(self.encodings)
        self._open: dict[Key, Lines] = {}
        self._latest: dict[Key, Key] = {}  # the last key opened, by the key at repetition 0
        self._finished: dict[Key, tuple[int, int]] = {}  # last repetition complete, its lines
        self._waiting: list[Frame] = []  # for a reference scan
        self._count = 0
        self._sent = 0
        self._imaged = False  # whether imaging lines came before any reference scan

    def add(self, readout: Readout) -> Iterator[Frame]:
        """Sort one readout by its flags, and yield the frames that it completes.

        Lines that serve calibration alone also count as imaging where the calibration is
        embedded in the scan; otherwise they are kept for their slice, until new ones replace
        them.  Other lines of a further encoding space, such as navigators, make no image.
        """
        head = readout.header
        flags, space = head.flags, head.encoding_space_ref
        encoding = numbered(self.encodings, space)
        auxiliary = 0 < space < len(self.encodings)
        if flags & CALIBRATION and not flags & CALIBRATION_AND_IMAGING:
            if auxiliary or encoding.calibration_mode != "embedded":
                yield from self.add_reference(readout)
                return
        elif auxiliary:
            self.declared.tell(f"Readouts of encoding space {space} make no image")
            return
        self.declared.check(readout, encoding)
        if not self._calibrations.referenced:
            self._imaged = True
        yield from self._served()
        key = Key.of(head)
        self._count += 1
        if key not in self._open:
            series = key._replace(repetition=0)
            repetition, count = self._finished.get(series, (-1, 0))
            late = count if key.repetition <= repetition else 0
            self._open[key] = Lines(self._count, self._latest.get(series), late)
            self._latest[series] = key
        lines = self._open[key]
        lines.readouts.append(readout)
        lines.grown = self._count
        for done in self._completed_by(key, head):
            yield from self._close(done)

    def add_reference(self, readout: Readout) -> Iterator[Frame]:
        """Keep a line of a separate reference scan; yield the frames that waited for it."""
        space = readout.header.encoding_space_ref
        if flaw := numbered(self.encodings, space).flaw:
            self.declared.tell(f"Readouts of encoding space {space} are left out: {flaw}")
            return
        self._calibrations.add(readout)
        if readout.header.flags & (LAST_IN_SLICE | LAST_OF_ALL):
            yield from self._served()

    def complete(self) -> Iterator[Frame]:
        """Take what has imaging lines as whole; what lacks a reference scan waits on for it."""
        for key, lines in list(self._open.items()):
            if lines.imaging:
                yield from self._close(key)
        yield from self._served()

    def finish(self) -> Iterator[Frame]:
        """Whatever has imaging lines and was not sent, in the order of arrival."""
        yield from self.complete()
        for lines in self._open.values():
            logger.warning("%d calibration lines came without imaging lines", len(lines.readouts))
        while self._waiting:
            yield self._numbered(self._waiting.pop(0))

    def _completed_by(self, key: Key, head: Any) -> list[Key]:
        lines = self._open[key]
        encoding = numbered(self.encodings, key.space)
        before = self._open.get(lines.before) if lines.before is not None else None
        outlived = (
            before is not None
            and before.grown < lines.begun
            # Repetitions may alternate, a line or a segment of each at a time.
            and encoding.lines / encoding.acceleration / 2 <= len(before.readouts)
            and len(before.readouts) <= len(lines.readouts)
        )
        complete = [lines.before] if outlived and lines.before is not None else []
        if not lines.imaging or head.idx.average + 1 < encoding.averages:
            return complete
        if head.flags & LAST_OF_ALL:
            # Interleaved slices each end with the flag: one that still lacks lines waits.
            return [
                held
                for held, own in self._open.items()
                if held in complete or (len(own.readouts) >= len(lines.readouts) and own.imaging)
            ]
        return [*complete, key] if head.flags & LAST_IN_SLICE else complete

    def _close(self, key: Key) -> Iterator[Frame]:
        """Make a frame, and yield it unless it waits for its reference scan."""
        lines = self._open.pop(key)
        if len(lines.readouts) < lines.late / 2:
            logger.warning(
                "%d readouts of slice %d, repetition %d are left out: "
                "they came after the last one of their frame",
                len(lines.readouts), key.slice, key.repetition,
            )  # fmt: skip
            return
        self._finished[key._replace(repetition=0)] = key.repetition, len(lines.readouts)
        encoding = numbered(self.encodings, key.space)
        expected = encoding.calibration_mode in REFERENCE_MODES and encoding.acceleration > 1
        for image in sort_readouts(lines.readouts, encoding):
            frame = self._frame(key.space, image)
            if _is_calibrated(frame) or not (expected and self._imaged):
                yield self._numbered(frame)
                continue
            self._waiting.append(frame)
            if len(self._waiting) > WAITING:
                logger.warning("No reference scan came while %d frames waited for it", WAITING)
                yield self._numbered(self._waiting.pop(0))

    def _served(self) -> Iterator[Frame]:
        """Frames whose slice has got its reference scan by now."""
        waiting, self._waiting = self._waiting, []
        for frame in waiting:
            if self._calibrations.has(frame.header.idx.slice):
                yield self._numbered(frame)
            else:
                self._waiting.append(frame)

    def _numbered(self, frame: Frame) -> Frame:
        """The frame as it is sent: with its number and, if it waited, its calibration."""
        if not _is_calibrated(frame) and self._calibrations.referenced:
            self._calibrate(frame)
        frame.index = self._sent
        self._sent += 1
        return frame

    def _calibrate(self, frame: Frame) -> None:
        head = frame.header
        kept = self._calibrations.nearest(head.idx.slice)
        if kept is not None:
            encoding = numbered(self.encodings, head.encoding_space_ref)
            if not frame.is_volume:
                encoding = replace(encoding, matrix=(*encoding.matrix[:2], 1))
            lines = kept.on_grid(encoding, frame.kspace.coils)
            frame.kspace = replace(frame.kspace, calibration=lines)

    def _frame(self, space: int, image: ImageLines) -> Frame:
        start = time.perf_counter()
        encoding, readouts, known = image
        assembled = assemble(readouts, encoding)
        problems = [*known, *assembled.problems]
        if space >= len(self.encodings):
            problems.append(
                f"its readouts name encoding space {space}, "
                f"the header describes {len(self.encodings)}"
            )
        head = _centre(readouts, encoding)
        covariance = None
        try:
            covariance = self.noise.covariance(len(assembled.values), head.sample_time_us)
            covariance = self.noise.checked(covariance, assembled)
        except InputError as error:
            problems.append(str(error))
        frame = Frame(
            kspace=assembled.kspace(covariance),
            header=head,
            recon_shape=encoding.recon_shape,
            fov_fraction=encoding.fov_fraction,
            field_of_view=encoding.recon_fov,
            problem="; ".join(problems) or None,
        )
        if problems:
            logger.warning("%s cannot be sampled: %s", frame.identity, frame.problem)
        self.declared.check_lines(readouts, encoding)
        if shared := [
            r for r in readouts if r.header.flags & (CALIBRATION_AND_IMAGING | CALIBRATION)
        ]:
            frame.own_calibration = not self._calibrations.awaits(head.idx.slice)
            self._calibrations.share(head.idx.slice, shared, encoding)
        if not frame.own_calibration and self._calibrations.has(head.idx.slice):
            self._calibrate(frame)
        frame.seconds["assembly"] = time.perf_counter() - start
        return frame


def _is_calibrated(frame: Frame) -> bool:
    return frame.own_calibration or frame.kspace.calibration is not None


def _centre(readouts: Sequence[Readout], encoding: Encoding) -> Any:
    """Header of the readout nearest to the centre of k-space."""

    def distance(readout: Readout) -> int:
        idx = readout.header.idx
        first = abs(idx.kspace_encode_step_1 - encoding.center[0])
        return int(first + abs(idx.kspace_encode_step_2 - encoding.center[1]))

    return min(readouts, key=distance).header
