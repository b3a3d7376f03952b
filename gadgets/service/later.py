"""Scans whose posterior images are made when the scanner has gone on, and fetched by it later."""

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

logger = logging.getLogger(__name__)

KEEP = 20
KEEP_SECONDS = 3600.0
ATTEMPTS = 16  # at the images of a scan, in which a node or the server ended: it may be the scan
FAILURES = 3  # of a node that told what was wrong
REASONS = 1000  # why images are no longer there, of so many measurements
LOST = "the images of measurement %s are lost: %s"
OUTCOMES = ("promised", "made", "fetched", "lost")


class Later:
    """Makes images of recorded scans, one scan after the other, and keeps them for a while.

    A scan that has been promised is made whatever happens: of a server that ends, the next one on
    the same folder takes over.  What is lost all the same is told in the log, to whoever asks for
    it, and counted.

    Parameters
    ----------
    keep : scans in all, those that wait to be made among them; of more, the oldest are dropped,
        those first that were fetched.
    seconds : that images are kept once they are made.
    folder : of the scans, for one server at a time; None takes a temporary one, which ends with the
        server.

    Attributes
    ----------
    outcomes : how many scans were promised, made, fetched and lost.
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
        """Take over what the last server on the same folder has left."""
        if self._folder is None or not self.keep or not self._folder.is_dir():
            return
        left = []
        for folder in sorted(
            self._place().glob(f"{PREFIX}*"), key=lambda path: path.stat().st_mtime
        ):
            try:
                left.append(Kept.found(folder))
            except InputError as error:
                logger.warning("what an earlier server left in %s is removed: %s", folder, error)
                Kept("", Chain("", ""), folder).drop()
        if left:
            logger.info("%d scans were left by an earlier server, in %s", len(left), self._root)
        for kept in left:
            self._insert(kept)
        # one that ends the server lets the others go first
        for kept in sorted(left, key=lambda kept: kept.attempts):
            if not kept.done.is_set():
                self._enqueue(kept, shared)
                continue
            if kept.error is not None:  # who was told may have ended in the same moment
                logger.error(LOST, kept.measurement, kept.error)
            self._expire_in(kept, kept.made + self.seconds - time.time())

    def new(self, measurement: str, chain: Chain) -> Kept:
        """A scan that comes now, its acquisitions to be written in its folder.

        Raises
        ------
        OSError
            Where there is no place for them.
        """
        return Kept.new(measurement, chain, self._place())

    def add(self, kept: Kept, shared: Shared) -> None:
        """Promise the images of a scan, and make them as soon as those before it are made.

        Raises
        ------
        OSError, InputError
            Where that cannot be written down: nothing is promised then.
        """
        kept.promise()
        with self._lock:
            self.outcomes["promised"] += 1
            self._insert(kept)
        self._enqueue(kept, shared)

    def find(self, measurement: str) -> Kept | None:
        """A scan that is kept, whether or not its images are made."""
        with self._lock:
            return self._kept.get(measurement)

    def reason(self, measurement: str) -> str:
        """Why the images of a measurement are not kept."""
        why = self._reasons.get(measurement) or (
            "a scan with later=true makes them, "
            f"for {self.seconds:g} s and {self.keep} scans in all"
        )
        return f"no images of measurement '{measurement}' are kept: {why}"

    def hand_out(self, kept: Kept) -> None:
        """Note that a client has got all images of a scan."""
        with self._lock:
            self.outcomes["fetched"] += not kept.fetched
            kept.hand_out()

    def close(self) -> None:
        """End: what was promised waits for the next server, or is lost without a folder."""
        with self._lock:
            self._closed = True
            left, self._kept = self._kept, OrderedDict()
        for kept in left.values():
            if self._folder is None:
                self._forget(kept, "the server stops, and has no folder that stays")
                continue
            if kept.timer is not None:
                kept.timer.cancel()
            if kept.error is None and not kept.fetched:
                logger.warning(
                    "measurement %s waits in %s for the next server", kept.measurement, self._root
                )
            if not kept.done.is_set():
                with contextlib.suppress(OSError, InputError):  # this attempt does not count
                    kept.attempts = max(0, kept.attempts - 1)
                    kept.promise()
                kept.error = InputError("the server stops; ask again when it runs")
                kept.done.set()  # whoever waits for it is told
        self._ends.close()

    def _place(self) -> Path:
        """The folder of all scans, made and locked as it is first needed."""
        with self._lock:
            if self._root is None:
                self._root = self._found_place()
            return self._root

    def _found_place(self) -> Path:
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
                self._ends.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._folder.stat().st_uid != os.geteuid():
                    raise PermissionError("it is another user's")
                self._folder.chmod(0o700)  # acquisitions are of patients
                return self._folder
            except BlockingIOError:
                reason = "another server uses it"
            except OSError as error:
                reason = str(error)
            logger.warning(
                "%s cannot hold scans of later=true (%s): those of this server end with it",
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
                others = [each for each in self._kept.values() if each is not kept]
                first = next((each for each in others if each.fetched), others[0])
                dropped.append(self._kept.pop(first.measurement))
        if old is not None:
            self._forget(old, "it was scanned again", lost=False)
        for each in dropped:
            self._forget(each, f"newer ones took their place, of {self.keep} scans in all")

    def _enqueue(self, kept: Kept, shared: Shared) -> None:
        self._jobs.put((kept, replace(shared, capture="")))  # it was captured as it came
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
            return  # dropped while it waited
        try:
            if kept.attempts >= ATTEMPTS:
                raise InputError(f"{ATTEMPTS} attempts were made, and the server ended in each")
            kept.attempts += 1
            kept.promise()
            assert kept.recording is not None
            with open_scan(kept.recording) as scan:
                made = run_chain(kept.chain, scan.header_xml, scan, shared)
                images = [item for item in made if isinstance(item, ismrmrd.Image)]
            if not self._still(kept):
                return
            kept.finish(images)
        except Exception as error:  # noqa: BLE001  (told to whoever fetches)
            if not self._still(kept):
                return
            kept.failures += not isinstance(error.__cause__, ConnectionError)
            if kept.attempts < ATTEMPTS and kept.failures < FAILURES:
                logger.warning("tried again: %s", describe(error))
                self._enqueue(kept, shared)
                return
            kept.fail(error)
        if kept.error is None:
            logger.info("%d images wait", len(kept.images))
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
        self._forget(kept, f"they were kept for {self.seconds:g} s")

    def _forget(self, kept: Kept, reason: str, lost: bool = True) -> None:
        failed = kept.error is not None  # told already
        if lost and not failed and not kept.fetched:
            self._lose(kept.measurement, f"{reason}; nobody had fetched them")
        elif lost and not failed:
            logger.info("the images of measurement %s are dropped: %s", kept.measurement, reason)
            self._remember(kept.measurement, f"they were fetched, and {reason}")
        if not kept.done.is_set():  # whoever waits for it is told
            kept.error = InputError(f"its images were not made: {reason}")
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
    """One line of what became of the scans that were promised; empty where there were none."""
    if not any(outcomes.values()):
        return ""
    return ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES)
