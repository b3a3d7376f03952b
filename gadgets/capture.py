"""Saving what a scanner sends, for replay."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ismrmrd

from scoremri_core.errors import InputError
from scoremri_core.scans import write_scan

logger = logging.getLogger(__name__)


def capture(items: Iterable[Any], header_xml: bytes, folder: str) -> Iterator[Any]:
    """Pass a stream on, and save its acquisitions and header in `folder` when it ends.

    The readouts are held in memory until then.  A scan that cannot be saved is logged: its
    images matter more.  An empty `folder` saves nothing.
    """
    if not folder:
        yield from items
        return
    kept: list[ismrmrd.Acquisition] = []
    try:
        for item in items:
            if isinstance(item, ismrmrd.Acquisition):
                kept.append(item)
            yield item
    finally:
        if kept:
            _save(kept, header_xml, Path(folder))


def _save(acquisitions: list[ismrmrd.Acquisition], header_xml: bytes, folder: Path) -> None:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    path = folder / f"scan_{stamp}.h5"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_scan(path, header_xml.rstrip(b"\0"), acquisitions)
    except (OSError, InputError) as error:
        logger.error("The scan was not captured: %s", error)
    else:
        logger.info("Captured %d acquisitions in %s", len(acquisitions), path)
