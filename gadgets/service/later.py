"""Deferred reconstruction: images are computed after the scan and fetched later."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import replace
from pathlib import Path

import ismrmrd

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.connection import describe
from gadgets.service.host import run_chain
from gadgets.service.kept import PREFIX, Kept
from gadgets.service.shared import Shared
from gadgets.threads import log_context, start
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

KEEP = 20
KEEP_SECONDS = 3600.0
ATTEMPTS = 16  # limit, including those in which a node or the server ended
FAILURES = 3  # limit of attempts in which a node reported an error
REASONS = 1000  # measurements whose reason for missing images is kept
LOST = "the images of measurement %s are lost: %s"
OUTCOMES = ("promised", "made", "fetched", "lost")


class Later:
    """Computes the images of deferred scans, one scan after the other, and keeps them for a while.

    A restarted server on the same folder takes over the scans of the last one. Lost scans are
    logged, reported to clients that fetch them, and counted.

    Parameters
    ----------
    keep : int, optional
        Maximum number of scans, waiting ones included. The oldest are dropped, fetched ones first.
    seconds : float, optional
        Time to keep images.
    folder : Path, optional
        Folder of the scans, for one server at a time. Default: temporary, removed with the server.

    Attributes
    ----------
    outcomes : Counter
        Numbers of scans promised, made, fetched and lost.
    """

    def __init__(
        self, keep: int = KEEP, seconds: float = KEEP_SECONDS, folder: Path | None = None
    ) -> None:
        self.keep = keep
        self.seconds = seconds
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        self._folder = folder
        self._root: Path | None = None
        self._ends = contextlib.ExitStack()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._reasons: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.RLock()
        self._jobs: queue.SimpleQueue[tuple[Kept, Shared]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._closed = False

    def resume(self, shared: Shared) -> None:
        """Take over the scans that the last server on the folder left."""
        if self._folder is None or not self.keep or not self._folder.is_dir():
            return
        left = []
        for folder in sorted(
            self._place().glob(f"{PREFIX}*"), key=lambda path: path.stat().st_mtime
        ):
            try:
                left.append(Kept.found(folder))
            except InputError as error:
                logger.warning("removing the scan of an earlier server in %s: %s", folder, error)
                Kept("", Chain("", ""), folder).drop()
        if left:
            logger.info("%s of an earlier server in %s", counted(len(left), "scan"), self._root)
        for kept in left:
            self._insert(kept)
        # scans that may crash the server last
        for kept in sorted(left, key=lambda kept: kept.attempts):
            if not kept.done.is_set():
                self._enqueue(kept, shared)
                continue
            if kept.error is not None:  # may not have been logged before
                logger.error(LOST, kept.measurement, kept.error)
            self._expire_in(kept, kept.made + self.seconds - time.time())

    def new(self, measurement: str, chain: Chain) -> Kept:
        """Create a scan, whose acquisitions are to be written to its folder.

        Raises
        ------
        OSError
            The folder cannot be created.
        """
        return Kept.new(measurement, chain, self._place())

    def add(self, kept: Kept, shared: Shared) -> None:
        """Promise the images of a scan and queue it.

        Raises
        ------
        OSError, InputError
            The promise cannot be saved.
        """
        kept.promise()
        with self._lock:
            self.outcomes["promised"] += 1
            self._insert(kept)
        self._enqueue(kept, shared)

    def find(self, measurement: str) -> Kept | None:
        """Return a scan, computed or not, or None."""
        with self._lock:
            return self._kept.get(measurement)

    def reason(self, measurement: str) -> str:
        """Return why there are no images of a measurement."""
        why = self._reasons.get(measurement) or (
            f"only scans with later=true are kept, at most {self.keep} for {self.seconds:g} s"
        )
        return f"no images of measurement '{measurement}': {why}"

    def hand_out(self, kept: Kept) -> None:
        """Record that a client has received all images of a scan."""
        with self._lock:
            self.outcomes["fetched"] += not kept.fetched
            kept.hand_out()

    def close(self) -> None:
        """Stop; promised scans wait for the next server, or are lost without a folder."""
        with self._lock:
            self._closed = True
            left, self._kept = self._kept, OrderedDict()
        for kept in left.values():
            if self._folder is None:
                self._forget(kept, "the server stopped, and has only a temporary folder")
                continue
            if kept.timer is not None:
                kept.timer.cancel()
            if kept.error is None and not kept.fetched:
                logger.warning(
                    "measurement %s waits in %s for the next server", kept.measurement, self._root
                )
            if not kept.done.is_set():
                with contextlib.suppress(OSError, InputError):  # do not count this attempt
                    kept.attempts = max(0, kept.attempts - 1)
                    kept.promise()
                kept.error = InputError("the server is stopping; try again later")
                kept.done.set()  # wake waiting clients
        self._ends.close()

    def _place(self) -> Path:
        """Return the folder of all scans, created and locked on first use."""
        with self._lock:
            if self._root is None:
                self._root = self._make_place()
            return self._root

    def _make_place(self) -> Path:
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
                self._ends.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._folder.stat().st_uid != os.geteuid():
                    raise PermissionError("it belongs to another user")
                self._folder.chmod(0o700)  # patient data
                return self._folder
            except BlockingIOError:
                reason = "another server uses it"
            except OSError as error:
                reason = str(error)
            logger.warning(
                "cannot store deferred scans in %s (%s): using a temporary folder",
                self._folder, reason,
            )  # fmt: skip
            self._folder = None
        return Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="scoremri_")))

    def _insert(self, kept: Kept) -> None:
        with self._lock:
            old = self._kept.pop(kept.measurement, None)
            self._kept[kept.measurement] = kept
            self._reasons.pop(kept.measurement, None)
            dropped = []
            while len(self._kept) > self.keep:
                others = [other for other in self._kept.values() if other is not kept]
                first = next((other for other in others if other.fetched), others[0])
                dropped.append(self._kept.pop(first.measurement))
        if old is not None:
            self._forget(old, "the measurement was repeated", lost=False)
        for old in dropped:
            self._forget(old, f"replaced by newer scans (at most {self.keep} are kept)")

    def _enqueue(self, kept: Kept, shared: Shared) -> None:
        self._jobs.put((kept, replace(shared, capture="")))  # captured on arrival
        with self._lock:
            if self._worker is None:
                self._worker = start(self._work, name="later")

    def _work(self) -> None:
        while True:
            kept, shared = self._jobs.get()
            with log_context(f"measurement {kept.measurement}"):
                self._make(kept, shared)

    def _make(self, kept: Kept, shared: Shared) -> None:
        if not self._still(kept):
            return  # dropped meanwhile
        try:
            if kept.attempts >= ATTEMPTS:
                raise InputError(f"the server ended in each of {ATTEMPTS} attempts")
            kept.attempts += 1
            kept.promise()
            assert kept.recording is not None
            with open_scan(kept.recording) as scan:
                made = run_chain(kept.chain, scan.header_xml, scan, shared)
                images = [item for item in made if isinstance(item, ismrmrd.Image)]
            if not self._still(kept):
                return
            kept.finish(images)
        except Exception as error:  # noqa: BLE001  (reported to clients)
            if not self._still(kept):
                return
            kept.failures += not isinstance(error.__cause__, ConnectionError)
            if kept.attempts < ATTEMPTS and kept.failures < FAILURES:
                logger.warning("retrying: %s", describe(error))
                self._enqueue(kept, shared)
                return
            kept.fail(error)
        if kept.error is None:
            logger.info("%s ready", counted(len(kept.images), "image"))
            self.outcomes["made"] += 1
        else:
            self._lose(kept.measurement, describe(kept.error))
        self._expire_in(kept, self.seconds)

    def _still(self, kept: Kept) -> bool:
        return not self._closed and self.find(kept.measurement) is kept

    def _expire_in(self, kept: Kept, seconds: float) -> None:
        with self._lock:
            if self._still(kept):
                kept.timer = threading.Timer(max(0.0, seconds), self._expire, [kept])
                kept.timer.daemon = True
                kept.timer.start()

    def _expire(self, kept: Kept) -> None:
        with self._lock:
            if self._kept.get(kept.measurement) is not kept:
                return
            del self._kept[kept.measurement]
        self._forget(kept, f"expired after {self.seconds:g} s")

    def _forget(self, kept: Kept, reason: str, lost: bool = True) -> None:
        failed = kept.error is not None  # already reported
        if lost and not failed and not kept.fetched:
            self._lose(kept.measurement, f"{reason}, not fetched")
        elif lost and not failed:
            logger.info("dropping the images of measurement %s: %s", kept.measurement, reason)
            self._remember(kept.measurement, f"fetched; {reason}")
        if not kept.done.is_set():  # wake waiting clients
            kept.error = InputError(f"images not computed: {reason}")
            kept.done.set()
        kept.drop()

    def _lose(self, measurement: str, reason: str) -> None:
        logger.error(LOST, measurement, reason)
        self.outcomes["lost"] += 1
        self._remember(measurement, reason)

    def _remember(self, measurement: str, reason: str) -> None:
        with self._lock:
            self._reasons[measurement] = reason
            while len(self._reasons) > REASONS:
                self._reasons.popitem(last=False)


def describe_outcomes(outcomes: Counter[str]) -> str:
    """Format the outcomes of deferred scans; empty without any."""
    if not any(outcomes.values()):
        return ""
    return ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES)
