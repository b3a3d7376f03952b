"""Capture of a scan to an ISMRMRD file, for replay."""

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
from scoremri_core.text import counted

logger = logging.getLogger(__name__)


def capture(items: Iterable[Any], header_xml: bytes, folder: str) -> Iterator[Any]:
    """Pass the items of a stream and save its header, acquisitions and waveforms.

    The file is named `*.partial.h5` until the stream is complete. A scan that cannot be saved,
    such as on a full disk, is logged and continues.

    Parameters
    ----------
    items : iterable
        Items of the stream.
    header_xml : bytes
        ISMRMRD header.
    folder : str
        Empty: not saved.

    Yields
    ------
    object
        Each item.
    """
    recording: Recording | None = None
    complete, saving = False, bool(folder)
    try:
        for item in items:
            if saving and isinstance(item, (ismrmrd.Acquisition, ismrmrd.Waveform)):
                try:
                    if recording is None:
                        recording = Recording(header_xml, Path(folder))
                    recording.add(item)
                except (OSError, RuntimeError, InputError) as error:  # h5py raises both
                    logger.error("Scan continues, but is not captured: %s", error)
                    saving = False
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
                logger.error("Scan is not captured: %s", error)
                recording.discard()


class Recording:
    """ISMRMRD file that is written during the scan.

    Parameters
    ----------
    header_xml : bytes
        ISMRMRD header.
    folder : Path
        Created if missing.
    """

    def __init__(self, header_xml: bytes, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = folder / f"scan_{stamp}.h5"
        self.partial = self.path.with_suffix(".partial.h5")
        header = parse_header(header_xml, "header of the scan")
        self._file = h5py.File(self.partial, "x", locking=False)
        self._writer = ScanWriter(self._file, header)

    def add(self, item: ismrmrd.Acquisition | ismrmrd.Waveform) -> None:
        """Append an acquisition or a waveform.

        Raises
        ------
        OSError, RuntimeError
            It cannot be written.
        """
        self._writer.add(item)

    def close(self, complete: bool) -> None:
        """Write buffered items; rename the file if the scan is complete."""
        self._writer.flush()
        release(self._file)
        self._file.close()
        count = self._writer.acquisitions
        if complete:
            os.replace(self.partial, self.path)
            logger.info("Captured %s in %s", counted(count, "acquisition"), self.path)
        else:
            logger.warning(
                "Scan is incomplete: %s in %s", counted(count, "acquisition"), self.partial
            )

    def discard(self) -> None:
        """Remove the file."""
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            logger.debug("Closing the incomplete file: %s", error)
        self.partial.unlink(missing_ok=True)
