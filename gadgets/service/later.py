"""Scans whose posterior images are made when the scanner has gone on, and fetched by it later."""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ismrmrd

from gadgets.protocol.chain import Chain
from gadgets.protocol.connection import describe
from gadgets.service.host import run_chain
from gadgets.service.shared import Shared
from scoremri_core.scans.files import open_scan

logger = logging.getLogger(__name__)

FETCH = "score_recon_fetch"  # the chain that a client names to fetch what was made
KEEP = 20
KEEP_SECONDS = 3600.0


def measurement_id(header: Any) -> str:
    """The ID that tells a measurement from others; empty where the header has none."""
    information = header.measurementInformation
    return ((information and information.measurementID) or "").strip()


@dataclass
class Kept:
    """What becomes of one scan.

    Attributes
    ----------
    measurement : its ID in the ISMRMRD header.
    chain : to run.
    folder : where its acquisitions are, until the images are made.
    images : once `done` is set,
    error : or what the scan failed with.
    timer : ends it.
    """

    measurement: str
    chain: Chain
    folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="scoremri_")
    )
    images: list[Any] = field(default_factory=list)
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)
    timer: threading.Timer | None = None

    @property
    def recording(self) -> Path | None:
        """File of its acquisitions, if they could be written."""
        files = Path(self.folder.name).glob("*.h5")
        return next((path for path in files if ".partial" not in path.suffixes), None)

    def mark(self, image: ismrmrd.Image) -> None:
        """Say on an image that there will be others."""
        meta = image.meta
        told = f"{FETCH} has the posterior images of measurement {self.measurement}"
        meta["later"] = told.encode("ascii", "replace").decode()
        image.meta = meta


class Later:
    """Makes images of recorded scans, one scan after the other, and keeps them for a while.

    Parameters
    ----------
    keep : scans in all, those that wait to be made among them; of more, the oldest are dropped.
    seconds : that images are kept once they are made.
    """

    def __init__(self, keep: int = KEEP, seconds: float = KEEP_SECONDS) -> None:
        self.keep = keep
        self.seconds = seconds
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Kept, Shared]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None

    def add(self, kept: Kept, shared: Shared) -> None:
        """Make the images of a scan as soon as those before it are made."""
        with self._lock:
            old = self._kept.pop(kept.measurement, None)
            self._kept[kept.measurement] = kept
            dropped = [] if old is None else [old]
            while len(self._kept) > self.keep:
                dropped.append(self._kept.popitem(last=False)[1])
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="later", daemon=True)
                self._worker.start()
        for each in dropped:
            self._forget(each, "a newer scan takes its place")
        self._jobs.put((kept, replace(shared, capture="")))  # it was captured as it came

    def find(self, measurement: str) -> Kept | None:
        """A scan that is kept, whether or not its images are made."""
        with self._lock:
            return self._kept.get(measurement)

    def close(self) -> None:
        """Drop everything."""
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
        for each in kept.values():
            self._forget(each, "the server stops")

    def _work(self) -> None:
        while True:
            kept, shared = self._jobs.get()
            if self.find(kept.measurement) is not kept:
                continue  # dropped while it waited
            try:
                assert kept.recording is not None
                with open_scan(kept.recording) as scan:
                    made = run_chain(kept.chain, scan.header_xml, scan, shared)
                    kept.images.extend(item for item in made if isinstance(item, ismrmrd.Image))
            except Exception as error:  # noqa: BLE001  (told to whoever fetches)
                logger.error("measurement %s: %s", kept.measurement, describe(error))
                kept.error = error
            kept.folder.cleanup()
            kept.done.set()
            logger.info("measurement %s: %d images wait", kept.measurement, len(kept.images))
            with self._lock:
                if self._kept.get(kept.measurement) is kept:
                    kept.timer = threading.Timer(self.seconds, self._expire, [kept])
                    kept.timer.daemon = True
                    kept.timer.start()

    def _expire(self, kept: Kept) -> None:
        with self._lock:
            if self._kept.get(kept.measurement) is not kept:
                return
            del self._kept[kept.measurement]
        self._forget(kept, f"it was kept for {self.seconds:g} s")

    def _forget(self, kept: Kept, reason: str) -> None:
        logger.info("measurement %s is dropped: %s", kept.measurement, reason)
        if kept.timer is not None:
            kept.timer.cancel()
        if not kept.done.is_set():  # whoever waits for it is told
            kept.error = kept.error or RuntimeError(f"its images were not made: {reason}")
            kept.folder.cleanup()
            kept.done.set()
