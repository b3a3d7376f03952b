"""Acquisitions to frames: sort imaging and calibration lines, detect complete frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader

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
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

REFERENCE_MODES = ("separate", "external")  # calibration modes with a separate scan
MAX_WAITING = 16  # frames held until their reference scan is acquired


class Key(NamedTuple):
    """Encoding space and `COUNTERS` of a frame."""

    space: int
    slice: int
    contrast: int
    phase: int
    repetition: int
    set: int

    @classmethod
    def of(cls, head: ismrmrd.AcquisitionHeader) -> Key:
        """Return the key of an acquisition."""
        return cls(head.encoding_space_ref, *(getattr(head.idx, name) for name in COUNTERS))


@dataclass
class Lines:
    """Readouts of an incomplete frame; `first` and `last` are their numbers in the stream."""

    first: int
    previous: Key | None  # frame of an earlier repetition that was open at `first`
    finished: int  # lines of the same or a later repetition that was complete at `first`
    last: int = 0
    readouts: list[Readout] = field(default_factory=list)

    @property
    def imaging(self) -> bool:
        """Whether any line is an imaging line."""
        flags = (readout.header.flags for readout in self.readouts)
        return any(f & CALIBRATION_AND_IMAGING or not f & CALIBRATION for f in flags)


def accumulate(
    items: Iterable[Any], header: ismrmrdHeader, properties: Properties
) -> Iterator[Any]:
    """Sort the acquisitions of a stream into frames; other items pass.

    Parameters
    ----------
    items : iterable
        Acquisitions and other items of the stream.
    header : ismrmrdHeader
        Of the scan.
    properties : Properties
        Of the node.

    Yields
    ------
    Frame or item that passes
        A frame as soon as it is complete; at the end of the stream, every frame with imaging lines.

    Raises
    ------
    InputError
        The encoding is not Cartesian.
    """
    sorter = FrameSorter(header, properties)
    for item in items:
        if not isinstance(item, ismrmrd.Acquisition):
            yield item
        elif item.flags & NOISE:
            sorter.noise.add(item)
        elif item.flags & NO_IMAGE:
            sorter.header_check.skip(item.flags)
        else:
            yield from sorter.add(Readout.of(item))
    yield from sorter.finish()


class FrameSorter:
    """Sort readouts into frames by encoding space, slice, contrast, phase, repetition and set.

    A frame is complete with its last-in-slice, last-in-repetition or last-in-measurement flag.
    Without these flags, it is complete once a later repetition of its slice has as many lines.

    Parameters
    ----------
    header : ismrmrdHeader
        Of the scan.
    properties : Properties
        Of the node.
    oversampled : bool, optional
        False if readout oversampling is already removed.
    """

    def __init__(
        self, header: ismrmrdHeader, properties: Properties, oversampled: bool = True
    ) -> None:
        spaces = encodings(header)
        self.encodings = spaces if oversampled else [s.without_oversampling() for s in spaces]
        self.noise = NoiseScan(header, properties)
        self.header_check = HeaderCheck(header)
        self._calibrations = CalibrationStore(self.encodings)
        self._open: dict[Key, Lines] = {}
        self._latest: dict[Key, Key] = {}  # last key opened, by the key at repetition 0
        self._finished: dict[Key, tuple[int, int]] = {}  # last complete repetition, its lines
        self._waiting: list[Frame] = []  # for a reference scan
        self._count = 0
        self._sent = 0
        self._imaged = False  # whether imaging lines precede any reference scan

    def add(self, readout: Readout) -> Iterator[Frame]:
        """Sort one readout by its flags and yield the frames that it completes.

        Calibration-only lines are imaging lines too if the calibration is embedded. Otherwise
        they calibrate their slice until new ones replace them. Other lines of a further encoding
        space, such as navigators, are ignored.
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
            self.header_check.warn_once(f"Readouts of encoding space {space} are ignored")
            return
        self.header_check.check(readout, encoding)
        if not self._calibrations.referenced:
            self._imaged = True
        yield from self._calibrated()
        key = Key.of(head)
        self._count += 1
        if key not in self._open:
            series = key._replace(repetition=0)
            repetition, count = self._finished.get(series, (-1, 0))
            finished = count if key.repetition <= repetition else 0
            self._open[key] = Lines(self._count, self._latest.get(series), finished)
            self._latest[series] = key
        lines = self._open[key]
        lines.readouts.append(readout)
        lines.last = self._count
        for done in self._completed_by(key, head):
            yield from self._close(done)

    def add_reference(self, readout: Readout) -> Iterator[Frame]:
        """Add a line of a separate reference scan and yield the frames that waited for it."""
        space = readout.header.encoding_space_ref
        if flaw := numbered(self.encodings, space).flaw:
            self.header_check.warn_once(f"Readouts of encoding space {space} are ignored: {flaw}")
            return
        self._calibrations.add(readout)
        if readout.header.flags & (LAST_IN_SLICE | LAST_OF_ALL):
            yield from self._calibrated()

    def complete(self) -> Iterator[Frame]:
        """Yield all frames with imaging lines, except those that wait for their reference scan."""
        for key, lines in list(self._open.items()):
            if lines.imaging:
                yield from self._close(key)
        yield from self._calibrated()

    def finish(self) -> Iterator[Frame]:
        """Yield all remaining frames with imaging lines, in order of acquisition."""
        yield from self.complete()
        for lines in self._open.values():
            logger.warning(
                "%d calibration lines without imaging lines are ignored", len(lines.readouts)
            )
        while self._waiting:
            yield self._numbered(self._waiting.pop(0))

    def _completed_by(self, key: Key, head: ismrmrd.AcquisitionHeader) -> list[Key]:
        lines = self._open[key]
        encoding = numbered(self.encodings, key.space)
        previous = self._open.get(lines.previous) if lines.previous is not None else None
        superseded = (
            previous is not None
            and previous.last < lines.first
            # Repetitions may alternate by line or segment.
            and encoding.lines / encoding.acceleration / 2 <= len(previous.readouts)
            and len(previous.readouts) <= len(lines.readouts)
        )
        complete = [lines.previous] if superseded and lines.previous is not None else []
        if not lines.imaging or head.idx.average + 1 < encoding.averages:
            return complete
        if head.flags & LAST_OF_ALL:
            # Each of several interleaved slices ends with the flag: those with fewer lines wait.
            return [
                other
                for other, held in self._open.items()
                if other in complete or (len(held.readouts) >= len(lines.readouts) and held.imaging)
            ]
        return [*complete, key] if head.flags & LAST_IN_SLICE else complete

    def _close(self, key: Key) -> Iterator[Frame]:
        """Assemble a frame and yield it unless it waits for its reference scan."""
        lines = self._open.pop(key)
        if len(lines.readouts) < lines.finished / 2:
            logger.warning(
                "Ignored %s of slice %d, repetition %d: "
                "acquired after the last readout of their frame",
                counted(len(lines.readouts), "readout"), key.slice, key.repetition,
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
            if len(self._waiting) > MAX_WAITING:
                logger.warning("No reference scan after %d frames; sending them", MAX_WAITING)
                yield self._numbered(self._waiting.pop(0))

    def _calibrated(self) -> Iterator[Frame]:
        """Yield the waiting frames whose slice has its reference scan."""
        waiting, self._waiting = self._waiting, []
        for frame in waiting:
            if self._calibrations.has(frame.header.idx.slice):
                yield self._numbered(frame)
            else:
                self._waiting.append(frame)

    def _numbered(self, frame: Frame) -> Frame:
        """Number a frame and add its calibration if it waited for it."""
        if not _is_calibrated(frame) and self._calibrations.referenced:
            self._calibrate(frame)
        frame.index = self._sent
        self._sent += 1
        return frame

    def _calibrate(self, frame: Frame) -> None:
        head = frame.header
        calibration = self._calibrations.nearest(head.idx.slice)
        if calibration is not None:
            encoding = numbered(self.encodings, head.encoding_space_ref)
            if not frame.is_volume:
                encoding = replace(encoding, matrix=(*encoding.matrix[:2], 1))
            on_grid = calibration.on_grid(encoding, frame.kspace.coils)
            frame.kspace = replace(frame.kspace, calibration=on_grid)

    def _frame(self, space: int, image: ImageLines) -> Frame:
        start = time.perf_counter()
        encoding, readouts, known = image
        assembled = assemble(readouts, encoding)
        problems = [*known, *assembled.problems]
        if space >= len(self.encodings):
            problems.append(
                f"encoding_space_ref is {space}, the header describes {len(self.encodings)}"
            )
        head = _centre(readouts, encoding)
        covariance = None
        try:
            covariance = self.noise.covariance(len(assembled.values), head.sample_time_us)
            covariance = self.noise.validated(covariance, assembled)
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
        self.header_check.check_lines(readouts, encoding)
        if shared := [
            r for r in readouts if r.header.flags & (CALIBRATION_AND_IMAGING | CALIBRATION)
        ]:
            frame.autocalibrated = not self._calibrations.awaits(head.idx.slice)
            self._calibrations.share(head.idx.slice, shared, encoding)
        if not frame.autocalibrated and self._calibrations.has(head.idx.slice):
            self._calibrate(frame)
        frame.seconds["assembly"] = time.perf_counter() - start
        return frame


def _is_calibrated(frame: Frame) -> bool:
    return frame.autocalibrated or frame.kspace.calibration is not None


def _centre(readouts: Sequence[Readout], encoding: Encoding) -> ismrmrd.AcquisitionHeader:
    """Return the header of the readout nearest to the centre of k-space."""

    def distance(readout: Readout) -> int:
        idx = readout.header.idx
        first = abs(idx.kspace_encode_step_1 - encoding.center[0])
        return int(first + abs(idx.kspace_encode_step_2 - encoding.center[1]))

    return min(readouts, key=distance).header
