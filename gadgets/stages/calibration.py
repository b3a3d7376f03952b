"""The calibration lines of a stream: which of them serve which frame."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from scoremri_core.kspace import KSpace
from scoremri_core.scans.encoding import Encoding, Readout, numbered
from scoremri_core.scans.gridding import assemble, on_grid_of
from scoremri_core.scans.sorting import sort_readouts

logger = logging.getLogger(__name__)


class Calibration:
    """Calibration lines of a slice, all of one encoding space.

    Parameters
    ----------
    number : of the slice.
    readouts : the lines; those of another encoding space than the first are not used.
    encoding : of the first.
    """

    def __init__(self, number: int, readouts: Sequence[Readout], encoding: Encoding) -> None:
        """Keep the lines, which are fewer than a matrix has."""
        space = readouts[0].header.encoding_space_ref
        self.slice = number
        self._gridded: dict[Encoding, KSpace] = {}  # the same object for all frames of a grid
        self._readouts = [r for r in readouts if r.header.encoding_space_ref == space]
        self._encoding = encoding

    def on_grid(self, encoding: Encoding, channels: int) -> KSpace | None:
        """K-space on the grid of a frame, None where it cannot be."""
        known = self._gridded.get(encoding)
        if known is not None and known.coils == channels:
            return known
        own = self._encoding
        assembled = assemble(self._readouts, own)
        for problem in assembled.problems:
            logger.warning("A calibration line of slice %d is left out: %s", self.slice, problem)
        found = len(assembled.values)
        if found != channels or len(own.points) != len(encoding.points):
            logger.warning(
                "The calibration of slice %d is not used: it has %d channels on a %dD grid, "
                "expected %d on a %dD grid",
                self.slice, found, len(own.points), channels, len(encoding.points),
            )  # fmt: skip
            return None
        if own != encoding:
            assembled = on_grid_of(assembled, own, encoding)
        return self._gridded.setdefault(encoding, assembled.kspace())


class CalibrationStore:
    """Keeps the latest calibration of each slice, until new calibration lines replace it.

    Lines come with the imaging lines of a frame (shared), or in a reference scan of their own,
    which may have an encoding space, and so a matrix and a field of view, of its own.
    """

    def __init__(self, encodings: list[Encoding]) -> None:
        """Start without any."""
        self._encodings = encodings
        self._arriving: dict[int, list[Readout]] = defaultdict(list)  # reference lines, by slice
        self._known: dict[int, Calibration] = {}
        self.referenced = False  # whether a reference scan came

    def add(self, readout: Readout) -> None:
        """Keep a line of a reference scan for the frames of its slice."""
        self.referenced = True
        self._arriving[readout.header.idx.slice].append(readout)

    def share(self, number: int, readouts: list[Readout], encoding: Encoding) -> None:
        """Take the calibration lines among the readouts of a frame of a slice."""
        arrived = self._arriving.pop(number, [])
        self._known[number] = Calibration(number, readouts + arrived, encoding)

    def awaits(self, number: int) -> bool:
        """Whether reference lines of a slice came since its last calibration."""
        return number in self._arriving

    def has(self, number: int) -> bool:
        """Whether there is calibration of this very slice."""
        return number in self._known or number in self._arriving

    def nearest(self, number: int) -> Calibration | None:
        """The calibration of a slice; where it has none, of the nearest slice that has some.

        It is the same object as long as no new lines came.
        """
        slices = {*self._known, *self._arriving}
        if not slices:
            return None
        source = min(slices, key=lambda known: (abs(known - number), known))
        if source in self._arriving:
            self._take(source, self._arriving.pop(source))
        if source != number:
            logger.debug("slice %d is calibrated with slice %d", number, source)
        return self._known[source]

    def _take(self, number: int, readouts: list[Readout]) -> None:
        """Take the lines of a reference scan: of those of several images, the first."""
        space = readouts[0].header.encoding_space_ref
        same = [r for r in readouts if r.header.encoding_space_ref == space]
        lines = sort_readouts(same, numbered(self._encodings, space))[0]
        self._known[number] = Calibration(number, lines.readouts, lines.encoding)
