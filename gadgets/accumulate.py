"""Acquisitions to frames: what is imaging, what is calibration, and when a frame is complete."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import ismrmrd
import numpy as np

from gadgets.encoding import Encoding, Readout, assemble, encodings
from gadgets.frame import Frame
from gadgets.noise_scan import NoiseScan
from gadgets.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.fourier import resize
from scoremri_core.scans import NOT_IMAGING, flag_bits

logger = logging.getLogger(__name__)

Key = tuple[int, int, int, int, int, int]

SHARED = flag_bits(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
CALIBRATION = flag_bits(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
NOISE = flag_bits(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
SKIPPED = flag_bits(*NOT_IMAGING)
LAST_IN_SLICE = flag_bits(ismrmrd.ACQ_LAST_IN_SLICE)
LAST_OF_ALL = flag_bits(ismrmrd.ACQ_LAST_IN_REPETITION, ismrmrd.ACQ_LAST_IN_MEASUREMENT)


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
        elif not item.flags & SKIPPED:
            head = item.getHead()
            sorter.add(Readout(head, item.data))
            yield from sorter.completed_by(head)
    yield from sorter.finish()


class FrameSorter:
    """Sorts readouts into frames by encoding space, slice, contrast, phase, repetition and set."""

    def __init__(self, header: Any, properties: Properties, oversampled: bool = True) -> None:
        """Start a stream; `oversampled` is False where readout oversampling is gone already."""
        spaces = encodings(header)
        self.encodings = spaces if oversampled else [s.without_oversampling() for s in spaces]
        self.noise = NoiseScan(header, properties)
        self._imaging: dict[Key, list[Readout]] = {}
        self._shared: dict[Key, list[Readout]] = defaultdict(list)
        self._reference: dict[int, list[Readout]] = defaultdict(list)  # by slice
        self._used: set[int] = set()  # slices whose reference has served a frame
        self._sent = 0

    def add(self, readout: Readout) -> None:
        """Sort one readout by its flags.

        Lines that serve calibration alone also count as imaging where the calibration is
        embedded in the scan; otherwise they are kept for their slice, until new ones replace
        them.
        """
        head = readout.header
        if head.encoding_space_ref >= len(self.encodings):
            logger.warning(
                "A readout of encoding space %d is left out: the header describes %d",
                head.encoding_space_ref,
                len(self.encodings),
            )
            return
        separate = (
            head.flags & CALIBRATION
            and not head.flags & SHARED
            and self.encodings[head.encoding_space_ref].calibration_mode != "embedded"
        )
        if separate:
            self.add_reference(readout)
            return
        key = _key(head)
        self._imaging.setdefault(key, []).append(readout)
        if head.flags & (SHARED | CALIBRATION):
            self._shared[key].append(readout)

    def add_reference(self, readout: Readout) -> None:
        """Keep a line of a separate calibration scan for the frames of its slice."""
        number = readout.header.idx.slice
        if number in self._used:
            self._used.discard(number)
            self._reference[number] = []
        self._reference[number].append(readout)

    def completed_by(self, head: Any) -> Iterator[Frame]:
        """Frames that a readout with this header, the last to be added, completes."""
        key = _key(head)
        lines = self._imaging.get(key, [])
        if not _is_imaging(lines) or head.idx.average + 1 < self.encodings[key[0]].averages:
            return
        if head.flags & LAST_OF_ALL:
            # Interleaved slices each end with the flag: one that still lacks lines waits.
            held = self._imaging.items()
            complete = [k for k, own in held if len(own) >= len(lines) and _is_imaging(own)]
        elif head.flags & LAST_IN_SLICE:
            complete = [key]
        else:
            return
        for done in complete:
            yield self._frame(done)

    def finish(self) -> Iterator[Frame]:
        """Whatever has imaging lines and was not sent, in the order of arrival."""
        for key, lines in list(self._imaging.items()):
            if _is_imaging(lines):
                yield self._frame(key)
            else:
                logger.warning("%d calibration lines came without imaging lines", len(lines))

    def _frame(self, key: Key) -> Frame:
        readouts = self._imaging.pop(key)
        encoding = self.encodings[key[0]]
        kspace, problems = assemble(readouts, encoding)
        head = _centre(readouts, encoding)
        problem = problems[0] if problems else None
        calibration = None
        if kspace.ndim == 4:
            problem = "a volume is reconstructed classically: sampling is for single slices"
        else:
            calibration = self._calibration(key, kspace)
        if not np.isfinite(kspace).all():
            problem = "the k-space holds values that are not finite"
        covariance = None
        try:
            covariance = self.noise.covariance(kspace.shape[-3], head.sample_time_us)
        except InputError as error:
            problem = problem or str(error)
        frame = Frame(
            kspace=kspace,
            calibration=calibration,
            noise_covariance=covariance,
            header=head,
            recon_shape=(encoding.recon_matrix[1], encoding.recon_matrix[0]),
            fov_fraction=encoding.fov_fraction,
            field_of_view=encoding.recon_fov,
            index=self._sent,
            problem=problem,
        )
        self._sent += 1
        return frame

    def _calibration(self, key: Key, kspace: np.ndarray) -> np.ndarray | None:
        """Calibration lines (coil, y, x) on the grid of `kspace`, None where there are none."""
        shared = self._shared.pop(key, [])
        reference = [
            readout for readout in self._reference[key[1]] if len(readout.data) == len(kspace)
        ]
        if reference:
            self._used.add(key[1])
        if not shared and not reference:
            return None
        # A reference scan may have an encoding space, and so a grid and a centre, of its own.
        space = key[0] if shared else reference[0].header.encoding_space_ref
        lines = shared + [r for r in reference if r.header.encoding_space_ref == space]
        calibration, problems = assemble(lines, self.encodings[space])
        for problem in problems:
            logger.warning("A calibration line is left out: %s", problem)
        if calibration.ndim == 4 or len(calibration) != len(kspace):
            return None
        return resize(calibration, kspace.shape[-2:])


def _is_imaging(readouts: list[Readout]) -> bool:
    """Whether there is more than calibration lines."""
    return any(r.header.flags & SHARED or not r.header.flags & CALIBRATION for r in readouts)


def _key(head: Any) -> Key:
    idx = head.idx
    counters = (idx.slice, idx.contrast, idx.phase, idx.repetition, idx.set)
    return (head.encoding_space_ref, *counters)


def _centre(readouts: list[Readout], encoding: Encoding) -> Any:
    """Header of the readout nearest to the centre of k-space."""

    def distance(readout: Readout) -> int:
        idx = readout.header.idx
        first = abs(idx.kspace_encode_step_1 - encoding.center[0])
        return int(first + abs(idx.kspace_encode_step_2 - encoding.center[1]))

    return min(readouts, key=distance).header
