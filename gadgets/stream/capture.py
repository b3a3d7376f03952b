"""Saving what a scanner sends, for replay."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import ismrmrd

from scoremri_core.errors import InputError
from scoremri_core.scans.files import ScanWriter, release
from scoremri_core.scans.header import parse_header

logger = logging.getLogger(__name__)


def capture(items: Iterable[Any], header_xml: bytes, folder: str) -> Iterator[Any]:
    """Pass a stream on, and save its acquisitions, waveforms and header in `folder`.

    They are written as they come, under a name that says `partial` until the stream has ended
    well.  A scan that cannot be saved, for instance on a full disk, is logged and goes on: its
    images matter more.  An empty `folder` saves nothing.
    """
    recording: Recording | None = None
    complete, wanted = False, bool(folder)
    try:
        for item in items:
            if wanted and isinstance(item, (ismrmrd.Acquisition, ismrmrd.Waveform)):
                try:
                    if recording is None:
                        recording = Recording(header_xml, Path(folder))
                    recording.add(item)
                except (OSError, RuntimeError, InputError) as error:  # h5py raises either
                    logger.error("The scan goes on, but is not captured: %s", error)
                    wanted = False
                    if recording is not None:
                        recording.discard()
                        recording = None
            yield item
        complete = True
    finally:
        if recording is not None:
            try:
                recording.close(complete)
            except (OSError, RuntimeError) as error:
                logger.error("The scan was not captured: %s", error)
                recording.discard()


class Recording:
    """An ISMRMRD file that grows."""

    def __init__(self, header_xml: bytes, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = folder / f"scan_{stamp}.h5"
        self.partial = self.path.with_suffix(".partial.h5")
        header = parse_header(header_xml, "the header of the scan")
        self._file = h5py.File(self.partial, "x", locking=False)
        self._writer = ScanWriter(self._file, header)

    def add(self, item: Any) -> None:
        """Keep an acquisition or a waveform; OSError or RuntimeError where it cannot be written."""
        self._writer.add(item)

    def close(self, complete: bool) -> None:
        """Write what is left; the file gets its name if the scan is complete."""
        self._writer.flush()
        release(self._file)
        self._file.close()
        count = self._writer.acquisitions
        if complete:
            os.replace(self.partial, self.path)
            logger.info("Captured %d acquisitions in %s", count, self.path)
        else:
            logger.warning("The scan broke off: its %d acquisitions are in %s", count, self.partial)

    def discard(self) -> None:
        """Remove what was written."""
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            logger.debug("closing what could not be written: %s", error)
        self.partial.unlink(missing_ok=True)
