"""Calibration lines of a stream, by slice."""

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
    number : int
        Of the slice.
    readouts : sequence of Readout
        Those of another encoding space than the first are ignored.
    encoding : Encoding
        Of the first readout.
    """

    def __init__(self, number: int, readouts: Sequence[Readout], encoding: Encoding) -> None:
        space = readouts[0].header.encoding_space_ref
        self.slice = number
        self._gridded: dict[Encoding, KSpace] = {}  # one object for all frames of a grid
        self._readouts = [r for r in readouts if r.header.encoding_space_ref == space]
        self._encoding = encoding

    def on_grid(self, encoding: Encoding, channels: int) -> KSpace | None:
        """Return the calibration k-space on the grid of a frame.

        Parameters
        ----------
        encoding : Encoding
            Grid of the frame.
        channels : int
            Coils of the frame.

        Returns
        -------
        KSpace or None
            None if the coils or the dimensions differ.
        """
        known = self._gridded.get(encoding)
        if known is not None and known.coils == channels:
            return known
        assembled = assemble(self._readouts, self._encoding)
        for problem in assembled.problems:
            logger.warning("Calibration line of slice %d is ignored: %s", self.slice, problem)
        found, dimensions = len(assembled.values), len(self._encoding.points)
        if found != channels or dimensions != len(encoding.points):
            logger.warning(
                "Calibration of slice %d is ignored: it has %d channels on a %dD grid, "
                "expected %d on a %dD grid",
                self.slice, found, dimensions, channels, len(encoding.points),
            )  # fmt: skip
            return None
        if self._encoding != encoding:
            assembled = on_grid_of(assembled, self._encoding, encoding)
        return self._gridded.setdefault(encoding, assembled.kspace())


class CalibrationStore:
    """Latest calibration of each slice, until new calibration lines replace it.

    Calibration lines are acquired with the imaging lines of a frame (shared) or in a separate
    reference scan, whose encoding space may have another matrix and field of view.

    Parameters
    ----------
    encodings : list of Encoding
        Encoding spaces of the scan.
    """

    def __init__(self, encodings: list[Encoding]) -> None:
        self._encodings = encodings
        self._arriving: dict[int, list[Readout]] = defaultdict(list)  # reference lines, by slice
        self._known: dict[int, Calibration] = {}
        self.referenced = False  # whether a reference scan was acquired

    def add(self, readout: Readout) -> None:
        """Add a line of a separate reference scan."""
        self.referenced = True
        self._arriving[readout.header.idx.slice].append(readout)

    def share(self, number: int, readouts: list[Readout], encoding: Encoding) -> None:
        """Replace the calibration of a slice by the calibration lines of a frame."""
        arrived = self._arriving.pop(number, [])
        self._known[number] = Calibration(number, readouts + arrived, encoding)

    def awaits(self, number: int) -> bool:
        """Whether a slice has reference lines newer than its last calibration."""
        return number in self._arriving

    def has(self, number: int) -> bool:
        """Whether a slice has a calibration."""
        return number in self._known or number in self._arriving

    def nearest(self, number: int) -> Calibration | None:
        """Return the calibration of a slice or, if it has none, of the nearest slice with one.

        The object stays the same until new lines are added.
        """
        slices = {*self._known, *self._arriving}
        if not slices:
            return None
        source = min(slices, key=lambda known: (abs(known - number), known))
        if source in self._arriving:
            self._take(source, self._arriving.pop(source))
        if source != number:
            logger.debug("Slice %d is calibrated with slice %d", number, source)
        return self._known[source]

    def _take(self, number: int, readouts: list[Readout]) -> None:
        """Make a calibration of the lines of a reference scan; of several images, the first."""
        space = readouts[0].header.encoding_space_ref
        same = [r for r in readouts if r.header.encoding_space_ref == space]
        lines = sort_readouts(same, numbered(self._encodings, space))[0]
        self._known[number] = Calibration(number, lines.readouts, lines.encoding)
