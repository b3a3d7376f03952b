"""What the header announces of the readouts, compared with those that come."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from scoremri_core.scans.encoding import Encoding, Readout
from scoremri_core.scans.flags import NOT_IMAGING, STEPS

logger = logging.getLogger(__name__)

FEW = 0.5  # of the lines announced; partial Fourier and an elliptical pattern leave more


class HeaderCheck:
    """Tells, once for each kind and stream, where the data and their header disagree.

    The data are what is reconstructed.

    Parameters
    ----------
    header : ISMRMRD header.
    """

    def __init__(self, header: Any) -> None:
        system = header.acquisitionSystemInformation
        self._channels = system.receiverChannels if system else None
        self._told: set[str] = set()

    def tell(self, message: str, *arguments: Any, level: int = logging.WARNING) -> None:
        """Log a kind of message the first time that it comes."""
        if message not in self._told:
            self._told.add(message)
            logger.log(level, message, *arguments)

    def skip(self, flags: int) -> None:
        """Tell of a readout that makes no image by its flags."""
        names = [name for bit, name in NOT_IMAGING.items() if flags & bit]
        self.tell(f"Readouts of {' and '.join(names)} make no image", level=logging.INFO)

    def check(self, readout: Readout, encoding: Encoding) -> None:
        """Tell what an imaging readout shows of the header."""
        channels = len(readout.data)
        if self._channels and channels != self._channels:
            self.tell(
                "The header announces %d receiver channels, readouts have %d, which are taken",
                self._channels, channels,
            )  # fmt: skip
        for name, steps in zip(STEPS, encoding.steps, strict=True):
            step = getattr(readout.header.idx, name)
            if step not in steps:
                self.tell(
                    f"The header limits {name} to %d to %d, a readout has %d",
                    steps.start, steps.stop - 1, step,
                )  # fmt: skip

    def check_lines(self, readouts: Sequence[Readout], encoding: Encoding) -> None:
        """Tell of a frame that has far fewer lines than the header announces."""
        idx = [readout.header.idx for readout in readouts]
        lines = len({(i.kspace_encode_step_1, i.kspace_encode_step_2) for i in idx})
        announced = round(encoding.lines / max(encoding.acceleration, 1))
        if lines < FEW * announced:
            self.tell(
                "Slice %d, repetition %d has %d lines of the %d that the header announces",
                idx[0].slice, idx[0].repetition, lines, announced,
            )  # fmt: skip
