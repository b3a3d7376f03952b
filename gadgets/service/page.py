"""What a server does, as a page that keeps itself up to date: its queue and its last frames."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from ismrmrd.xsd import ismrmrdHeader

import scoremri_core.reports
from gadgets.stages.observer import ScanObserver
from scoremri_core.reports.frame import ReportFrame, section
from scoremri_core.reports.geometry import Geometry
from scoremri_core.reports.page import page
from scoremri_core.reports.result import shown
from scoremri_core.scans.directions import pixel_directions
from scoremri_core.scans.flags import COUNTERS

if TYPE_CHECKING:
    from gadgets.service.server import Server
    from gadgets.stages.frame import Frame
    from scoremri_core import Reconstruction

LAST = 6  # frames that are kept for the page
READERS = 8  # browsers that may watch at once: each has a thread
LOOK_SECONDS = 1.0  # at the queue
QUIET_SECONDS = 15.0  # after which a reader is told that the server is still there
TITLE = "scoremri server"


class Page:
    """The queue and the last frames of a server, for browsers.

    Parameters
    ----------
    server : asked for its scans whenever its queue is shown.
    show_names : tell the patient's name and the protocol as the scan's header has them; without
        it, a scan is called by its number alone.
    """

    def __init__(self, server: Server, show_names: bool = False) -> None:
        self._server = server
        self._show_names = show_names
        self._changed = threading.Condition()
        self._frames: deque[tuple[int, Callable[[], str]]] = deque(maxlen=LAST)
        self._open: dict[int, Scan] = {}
        self._scans = self._shown = self._readers = 0
        self._closed = False

    def scan(self) -> Scan:
        """Observe one scan."""
        with self._changed:
            self._scans += 1
            self._open[self._scans] = scan = Scan(self, self._scans)
        return scan

    def document(self) -> bytes:
        """The page, which then reads the events."""
        body = [
            '<p id="state" class="notice"></p>',
            '<section id="queue"></section>',
            f'<section><h2>Last frames</h2><div id="last" data-most="{LAST}"></div></section>',
        ]
        live = files(scoremri_core.reports).joinpath("live.js").read_text()
        about = "Scans and frames as they come. Patients are not named."
        if self._show_names:
            about = "Scans and frames as they come, with the names that their headers hold."
        return page(TITLE, about, body, [live]).encode()

    def events(self, last: int = 0) -> Iterator[bytes]:
        """Server-sent events for one reader, until the page is closed.

        Parameters
        ----------
        last : number of the last frame that the reader has.

        Yields
        ------
        An event `queue` whenever the queue changes, and an event `frame` for each new frame, of
        which the data are HTML; nothing at all where there are too many readers.
        """
        with self._changed:
            if self._readers >= READERS:
                return
            self._readers += 1
        try:
            yield from self._told(last if last <= self._shown else 0)
        finally:
            with self._changed:
                self._readers -= 1

    def close(self) -> None:
        """Let the readers go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def add(self, frame: ReportFrame) -> None:
        """Show a frame."""
        with self._changed:
            self._shown += 1
            number = self._shown
            self._frames.append((number, _once(lambda: section(frame, f"frame-{number}"))))
            self._changed.notify_all()

    def ended(self, scan: Scan) -> None:
        """Take a scan off the queue."""
        with self._changed:
            self._open.pop(scan.number, None)
            self._changed.notify_all()

    def named(self, header: ismrmrdHeader) -> str:
        """What a header says of who and what is scanned, if that may be shown."""
        if not self._show_names:
            return ""
        patient = getattr(header.subjectInformation, "patientName", None)
        protocol = getattr(header.measurementInformation, "protocolName", None)
        return ", ".join(str(name) for name in (patient, protocol) if name)

    def _told(self, last: int) -> Iterator[bytes]:
        before, said = "", time.monotonic()
        while True:
            with self._changed:
                closed = self._closed
                fresh = [each for each in self._frames if each[0] > last]
            queue = self._queue()
            if queue != before:
                yield _event("queue", queue)
                before, said = queue, time.monotonic()
            for last, drawn in fresh:
                yield _event("frame", drawn(), last)
                said = time.monotonic()
            if closed:
                return
            if time.monotonic() - said > QUIET_SECONDS:
                yield b": still here\n\n"  # fails where the reader has gone
                said = time.monotonic()
            with self._changed:
                if not self._closed and self._shown <= last:
                    self._changed.wait(LOOK_SECONDS)

    def _queue(self) -> str:
        server = self._server
        with self._changed:
            scans = list(self._open.values())
        done = ", ".join(f"{count} {name}" for name, count in server.scans_done.items())
        facts = {
            "Server": server.state,
            "Scans open": str(server.scans_open),
            "Scans waiting for the device": str(server.scans_waiting),
            "Scans done": done,
        }
        told = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
        rows = "".join(
            f"<tr><td>{escape(scan.name)}</td><td>{scan.done}</td><td>{scan.waiting}</td></tr>"
            for scan in scans
        )
        table = (
            "<table><thead><tr><th>scan</th><th>frames done</th><th>frames waiting</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
        )
        return f"<h2>Queue</h2><dl>{told}</dl>" + (table if rows else "")


class Scan(ScanObserver):
    """One scan of the page."""

    def __init__(self, page: Page, number: int) -> None:
        self.number = number
        self.name = f"scan {number}"
        self.done = self._arrived = 0  # each counted by one thread
        self._page = page
        self._header: ismrmrdHeader | None = None

    @property
    def waiting(self) -> int:
        """Frames that were read and are not reconstructed yet."""
        return self._arrived - self.done

    def scan_started(self, header: ismrmrdHeader) -> None:
        """Take its name, if names may be shown, and which way its images run."""
        self._header = header
        if words := self._page.named(header):
            self.name += f" ({words})"

    def frame_received(self) -> None:
        """One frame more waits."""
        self._arrived += 1

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        """Show it."""
        self.done += 1
        self._page.add(_shown(self.name, frame, result, self._header))

    def close(self) -> None:
        """Leave the queue."""
        self._page.ended(self)


def _shown(
    scan: str, frame: Frame, result: Reconstruction, header: ismrmrdHeader | None
) -> ReportFrame:
    """A frame as a report shows it; of a volume, the partition in the middle."""
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


def _once(draw: Callable[[], str]) -> Callable[[], str]:
    """Draw when it is first looked at, and keep that for the next reader."""
    kept: list[str] = []

    def drawn() -> str:
        if not kept:
            kept.append(draw())
        return kept[0]

    return drawn


def _event(name: str, data: str, number: int | None = None) -> bytes:
    lines = [f"event: {name}", *(f"data: {line}" for line in data.splitlines())]
    if number is not None:
        lines.append(f"id: {number}")
    return ("\n".join(lines) + "\n\n").encode()
