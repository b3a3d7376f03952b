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
import numpy as np
from ismrmrd import xsd
from ismrmrd.file import Acquisitions, Waveforms

from scoremri_core.errors import InputError
from scoremri_core.scans.header import parse_header

logger = logging.getLogger(__name__)

BLOCK = 64  # items held before they are written: one by one they would take too long
RESERVE = 1 << 20  # bytes on top of a block, for what HDF5 writes besides


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
        header.version = None  # a server hangs on a version other than its own
        self._file = h5py.File(self.partial, "x", locking=False)
        group = self._file.create_group("dataset")
        text = xsd.ToXML(header).encode()
        group.create_dataset("xml", data=[text], dtype=h5py.special_dtype(vlen=bytes))
        self._tables = {
            ismrmrd.Acquisition: Table(group, "data", Acquisitions),
            ismrmrd.Waveform: Table(group, "waveforms", Waveforms),
        }

    def add(self, item: Any) -> None:
        """Keep an acquisition or a waveform; OSError or RuntimeError where it cannot be written."""
        self._tables[type(item)].add(item)

    def close(self, complete: bool) -> None:
        """Write what is left; the file gets its name if the scan is complete."""
        for table in self._tables.values():
            table.write()
        self._file.close()
        count = self._tables[ismrmrd.Acquisition].count
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


class Table:
    """A dataset of acquisitions or waveforms that grows by blocks."""

    def __init__(self, group: h5py.Group, name: str, rows: Any) -> None:
        self.count = 0
        self._group = group
        self._name = name
        self._rows = rows  # Acquisitions or Waveforms of ismrmrd.file
        self._pending: list[Any] = []

    def add(self, item: Any) -> None:
        """Keep an item."""
        self._pending.append(self._rows.to_numpy(item))
        self.count += 1
        if len(self._pending) == BLOCK:
            self.write()

    def write(self) -> None:
        """Write what was kept."""
        if not self._pending:
            return
        block = np.array(self._pending, self._rows.datatype)
        _reserve(self._group.file, sum(row[1].nbytes + row[-1].nbytes for row in self._pending))
        dataset = self._group.get(self._name)
        if dataset is None:
            dataset = self._group.create_dataset(
                self._name, (0,), block.dtype, maxshape=(None,), chunks=(BLOCK,)
            )
        dataset.resize(len(dataset) + len(block), axis=0)
        dataset[-len(block) :] = block
        self._group.file.flush()
        self._pending.clear()


def _reserve(file: h5py.File, count: int) -> None:
    """Have the disk space for a block, or raise OSError: HDF5 crashes where it runs out of it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.id.get_vfd_handle(), file.id.get_filesize(), 2 * count + RESERVE)
