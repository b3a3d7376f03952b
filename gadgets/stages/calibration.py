"""The calibration lines of a stream: which of them serve which frame."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scoremri_core.scans.encoding import Encoding, Readout, numbered
from scoremri_core.scans.gridding import assemble, on_grid_of
from scoremri_core.scans.sorting import sort_readouts

if TYPE_CHECKING:
    from scoremri_core.mri.coil_compression import CoilCompression

logger = logging.getLogger(__name__)


class Calibration:
    """Calibration lines of a slice, all of one encoding space.

    Parameters
    ----------
    number : of the slice.
    readouts : the lines; those of another encoding space than the first are not used.
    encoding : of the first.

    Attributes
    ----------
    maps : coil maps estimated from the lines, by the shape of the k-space that they are for;
        filled where they are estimated.
    compression : of the coils for the frames that the lines serve; filled where it is found.
    """

    def __init__(self, number: int, readouts: Sequence[Readout], encoding: Encoding) -> None:
        """Keep the lines, which are fewer than a matrix has."""
        space = readouts[0].header.encoding_space_ref
        self.slice = number
        self.maps: dict[tuple[int, ...], np.ndarray] = {}
        self.compression: CoilCompression | None = None
        self._readouts = [r for r in readouts if r.header.encoding_space_ref == space]
        self._encoding = encoding

    def on_grid(self, encoding: Encoding, channels: int) -> np.ndarray | None:
        """Zero-filled k-space (coil, ...) on the grid of a frame, None where it cannot be."""
        own = self._encoding
        kspace, _, problems = assemble(self._readouts, own)
        for problem in problems:
            logger.warning("A calibration line of slice %d is left out: %s", self.slice, problem)
        if len(kspace) != channels or len(own.points) != len(encoding.points):
            logger.warning(
                "The calibration of slice %d is not used: it has %d channels on a %dD grid, "
                "expected %d on a %dD grid",
                self.slice, len(kspace), len(own.points), channels, len(encoding.points),
            )  # fmt: skip
            return None
        return kspace if own == encoding else on_grid_of(kspace, own, encoding)


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
