"""Status page of a server: its queue and its last frames."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING

from ismrmrd.xsd import ismrmrdHeader

import scoremri_core
from gadgets.stages.observer import ScanObserver
from scoremri_core.reports.frame import ReportFrame
from scoremri_core.reports.geometry import Geometry
from scoremri_core.reports.page import page, table, terms, viewer
from scoremri_core.reports.result import shown
from scoremri_core.scans.directions import pixel_directions
from scoremri_core.scans.flags import COUNTERS

if TYPE_CHECKING:
    from gadgets.service.server import Server
    from gadgets.stages.frame import Frame
    from scoremri_core import Progress, Reconstruction

LAST = 6  # frames shown
READERS = 8  # maximum number of browsers; each has a thread
POLL_SECONDS = 1.0  # of the queue
KEEPALIVE_SECONDS = 15.0
TITLE = "scoremri server"


class Page:
    """Status page of a server, for browsers.

    Parameters
    ----------
    server : Server
        Read whenever the queue is shown.
    show_names : bool, optional
        Show patient name and protocol of the scan's header. Default: only the scan's number.
    """

    def __init__(self, server: Server, show_names: bool = False) -> None:
        self._server = server
        self._show_names = show_names
        self._changed = threading.Condition()
        self._frames: deque[tuple[int, Callable[[], str]]] = deque(maxlen=LAST)
        self._open: dict[int, Scan] = {}
        self._scans = self._shown = self._fallbacks = self._readers = 0
        self._closed = False

    def scan(self) -> Scan:
        """Return an observer of one scan."""
        with self._changed:
            self._scans += 1
            self._open[self._scans] = scan = Scan(self, self._scans)
        return scan

    def document(self) -> bytes:
        """Return the HTML page, which reads the events."""
        body = [
            '<p id="state" class="notice"></p>',
            f'<section id="queue" data-most="{LAST}"></section>',
            viewer(),
        ]
        about = "Current scans and last frames. Patient names are hidden."
        if self._show_names:
            about = "Current scans and last frames, with patient names."
        return page(TITLE, about, body, ["viewer.js", "live.js"]).encode()

    def events(self, last: int = 0) -> Iterator[bytes]:
        """Yield server-sent events for one reader, until the page is closed.

        Parameters
        ----------
        last : int, optional
            Number of the last frame that the reader has received.

        Yields
        ------
        bytes
            Event `queue`, HTML, when the queue changes, and event `frame`, JSON for the viewer, for
            each new frame; nothing if there are too many readers.
        """
        with self._changed:
            if self._readers >= READERS:
                return
            self._readers += 1
        try:
            yield from self._events(last if last <= self._shown else 0)
        finally:
            with self._changed:
                self._readers -= 1

    def close(self) -> None:
        """End all event streams."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def add(self, frame: ReportFrame) -> None:
        """Add a frame."""
        with self._changed:
            self._shown += 1
            self._fallbacks += bool(frame.facts.fallback)
            self._frames.append((self._shown, functools.cache(lambda: json.dumps(frame.as_json()))))
            self._changed.notify_all()

    def ended(self, scan: Scan) -> None:
        """Remove a scan from the queue."""
        with self._changed:
            self._open.pop(scan.number, None)
            self._changed.notify_all()

    def named(self, header: ismrmrdHeader) -> str:
        """Return patient name and protocol of a header, if they may be shown."""
        if not self._show_names:
            return ""
        patient = getattr(header.subjectInformation, "patientName", None)
        protocol = getattr(header.measurementInformation, "protocolName", None)
        return ", ".join(str(name) for name in (patient, protocol) if name)

    def _events(self, last: int) -> Iterator[bytes]:
        previous, sent = "", time.monotonic()
        while True:
            with self._changed:
                closed = self._closed
                new = [frame for frame in self._frames if frame[0] > last]
            queue = self._queue()
            if queue != previous:
                yield _event("queue", queue)
                previous, sent = queue, time.monotonic()
            for last, data in new:
                yield _event("frame", data(), last)
                sent = time.monotonic()
            if closed:
                return
            if time.monotonic() - sent > KEEPALIVE_SECONDS:
                yield b": still here\n\n"  # fails if the reader has gone
                sent = time.monotonic()
            with self._changed:
                if not self._closed and self._shown <= last:
                    self._changed.wait(POLL_SECONDS)

    def _queue(self) -> str:
        server = self._server
        with self._changed:
            scans = list(self._open.values())
        done = ", ".join(f"{count} {name}" for name, count in server.scans_done.items())
        facts = {
            "Server": f"scoremri {scoremri_core.__version__}, {server.state}",
            "Device": server.device,
            "Priors": server.priors,
            "Scans open": str(server.scans_open),
            "Scans waiting for the device": str(server.scans_waiting),
            "Scans done": done,
            "Frames done": f"{self._shown}, {self._fallbacks} of them classical fallbacks",
        }
        heads = ("scan", "frames done", "frames waiting", "present frame", "time left")
        rows = [
            (
                escape(scan.name), str(scan.done), str(scan.waiting), scan.level, scan.time_left()
            )
            for scan in scans
        ]  # fmt: skip
        return f"<h2>Queue</h2>{terms(facts)}" + (table(heads, rows) if rows else "")


class Scan(ScanObserver):
    """Observer of one scan.

    Attributes
    ----------
    name : str
    done : int
        Frames that are reconstructed.
    level : str
        Noise level of the frames that are being sampled.
    """

    def __init__(self, page: Page, number: int) -> None:
        self.number = number
        self.name = f"scan {number}"
        self.level = ""
        self.done = self._arrived = 0  # each modified by one thread
        self._part = 0.0  # frames completed of those that are being sampled
        self._start = (0.0, 0.0)  # time and frames when the first level was completed
        self._page = page
        self._header: ismrmrdHeader | None = None

    @property
    def waiting(self) -> int:
        """Number of frames waiting to be reconstructed."""
        return self._arrived - self.done

    def time_left(self) -> str:
        """Estimate the time that the received frames take, in words; empty if unknown."""
        begin, done = self._start
        rate = (self.done + self._part - done) / max(time.monotonic() - begin, 1e-3)
        if not self.waiting or not begin or rate <= 0:
            return ""
        seconds = (self.waiting - self._part) / rate
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

    def scan_started(self, header: ismrmrdHeader) -> None:
        """Take the header of the scan."""
        self._header = header
        if names := self._page.named(header):
            self.name += f" ({names})"

    def frame_received(self) -> None:
        """Count a frame that waits."""
        self._arrived += 1

    def level_sampled(self, frames: int, progress: Progress) -> None:
        """Take the progress of a batch of frames."""
        self._part = frames * progress.done
        self._start = self._start if self._start[0] else (time.monotonic(), self._part)
        self.level = f"noise level {progress.level} of {progress.levels}"

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        """Show a reconstructed frame."""
        self.done += 1
        self._part, self.level = max(self._part - 1, 0.0), ""
        self._page.add(_shown(self.name, frame, result, self._header))

    def close(self) -> None:
        """Remove the scan from the queue."""
        self._page.ended(self)


def _shown(
    scan: str, frame: Frame, result: Reconstruction, header: ismrmrdHeader | None
) -> ReportFrame:
    """Return a frame for a report; the middle partition of a volume."""
    head, z = frame.header, len(result.mean) // 2
    names = [f"slice {head.idx.slice}"]
    names += [f"{name} {at}" for name in COUNTERS[1:] if (at := getattr(head.idx, name))]
    if len(result.mean) > 1:
        names.append(f"partition {z}")
    x, y, depth = frame.field_of_view
    across, down, _ = pixel_directions(head, header, len(result.mean))
    geometry = Geometry(
        (x, y, depth / len(result.mean)),
        tuple(across),
        tuple(down),
        tuple(head.position) if len(result.mean) == 1 else None,
    )
    name = f"{scan}: {', '.join(names)}"
    return shown(result, z, name=name, geometry=geometry, acceleration=frame.kspace.acceleration)


def _event(name: str, data: str, number: int | None = None) -> bytes:
    lines = [f"event: {name}", *(f"data: {line}" for line in data.splitlines())]
    if number is not None:
        lines.append(f"id: {number}")
    return ("\n".join(lines) + "\n\n").encode()
