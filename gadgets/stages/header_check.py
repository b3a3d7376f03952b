"""Comparison of the ISMRMRD header with the readouts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.scans.encoding import Encoding, Readout
from scoremri_core.scans.flags import NOT_IMAGING, STEPS

logger = logging.getLogger(__name__)

MIN_LINES = 0.5  # of those in the header; partial Fourier and elliptical masks keep more


class HeaderCheck:
    """Warn where readouts contradict the header, once per kind and scan.

    The reconstruction follows the readouts.

    Parameters
    ----------
    header : ismrmrdHeader
        Of the scan.
    """

    def __init__(self, header: ismrmrdHeader) -> None:
        system = header.acquisitionSystemInformation
        self._channels = system.receiverChannels if system else None
        self._logged: set[str] = set()

    def warn_once(self, message: str, *arguments: Any, level: int = logging.WARNING) -> None:
        """Log a message unless it was logged before."""
        if message not in self._logged:
            self._logged.add(message)
            logger.log(level, message, *arguments)

    def skip(self, flags: int) -> None:
        """Report a readout that is not an imaging readout by its flags."""
        names = [name for bit, name in NOT_IMAGING.items() if flags & bit]
        self.warn_once(f"Readouts of {' and '.join(names)} are ignored", level=logging.INFO)

    def check(self, readout: Readout, encoding: Encoding) -> None:
        """Compare an imaging readout with the header."""
        channels = len(readout.data)
        if self._channels and channels != self._channels:
            self.warn_once(
                "The header declares %d receiver channels, readouts have %d; using the latter",
                self._channels, channels,
            )  # fmt: skip
        for name, steps in zip(STEPS, encoding.steps, strict=True):
            step = getattr(readout.header.idx, name)
            if step not in steps:
                self.warn_once(
                    f"The header limits {name} to %d..%d, a readout has %d",
                    steps.start, steps.stop - 1, step,
                )  # fmt: skip

    def check_lines(self, readouts: Sequence[Readout], encoding: Encoding) -> None:
        """Report a frame with far fewer lines than the header declares."""
        idx = [readout.header.idx for readout in readouts]
        lines = len({(i.kspace_encode_step_1, i.kspace_encode_step_2) for i in idx})
        declared = round(encoding.lines / max(encoding.acceleration, 1))
        if lines < MIN_LINES * declared:
            self.warn_once(
                "Slice %d, repetition %d has %d of the %d lines that the header declares",
                idx[0].slice, idx[0].repetition, lines, declared,
            )  # fmt: skip
