"""HTTP server for health checks, metrics and the status page."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from gadgets.service.listening import format_address, listen
from gadgets.service.metrics import Metrics
from gadgets.service.page import Page
from gadgets.stages.observer import ObserverGroup, ScanObserver

if TYPE_CHECKING:
    from gadgets.service.server import Server

logger = logging.getLogger(__name__)

HTML = "text/html; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
REQUEST_SECONDS = 10  # timeout


class Status:
    """HTTP server that runs until it is closed.

    `/healthz` returns 200 while the process is alive, `/readyz` while scans are accepted (503 while
    weights are loaded and while open scans finish after SIGTERM), `/metrics` is for Prometheus, `/`
    is the status page, and `/events` its updates.

    Parameters
    ----------
    hosts : sequence of str
        Addresses, as for `listen`.
    port : int
        Port, as for `listen`.
    server : Server
        Server to report on.
    show_names : bool, optional
        As for `Page`.

    Raises
    ------
    InputError
        As `listen` and `Metrics`.
    """

    def __init__(
        self, hosts: Sequence[str], port: int, server: Server, show_names: bool = False
    ) -> None:
        self.metrics = Metrics(server)
        self.page = Page(server, show_names)
        self._answers: list[ThreadingHTTPServer] = []

        class Handler(_Handler):
            status = self
            serves = server

        for listener in listen(hosts, port, "--status-port"):
            http = ThreadingHTTPServer(listener.getsockname()[:2], Handler, False)
            http.socket.close()
            http.socket = listener
            threading.Thread(target=http.serve_forever, name="status", daemon=True).start()
            self._answers.append(http)
        logger.info(
            "Status on %s",
            " and ".join(f"http://{format_address(address)}" for address in self.addresses),
        )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses that it listens on."""
        return [http.socket.getsockname()[:2] for http in self._answers]

    def scan(self) -> ScanObserver:
        """Return an observer of one scan, for the metrics and the page."""
        return ObserverGroup([self.metrics.scan(), self.page.scan()])

    def close(self) -> None:
        """Stop and release the port."""
        self.page.close()
        for http in self._answers:
            http.shutdown()
            http.server_close()


class _Handler(BaseHTTPRequestHandler):
    status: Status
    serves: Server
    timeout = REQUEST_SECONDS
    server_version, sys_version = "scoremri", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(HTTPStatus.OK, b"alive\n")
        elif path == "/readyz":
            state = self.serves.state
            ready = HTTPStatus.OK if state == "ready" else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(ready, f"{state}\n".encode())
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, *self.status.metrics.text())
        elif path == "/":
            self._answer(HTTPStatus.OK, self.status.page.document(), HTML)
        elif path == "/events" and self.command == "GET":
            self._stream()
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"known are /, /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815

    def _stream(self) -> None:
        last = self.headers.get("Last-Event-ID", "")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        with contextlib.suppress(OSError):  # the reader has gone
            for event in self.status.page.events(int(last) if last.isdecimal() else 0):
                self.wfile.write(event)
        self.close_connection = True

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = PLAIN) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, form: str, *arguments: Any) -> None:
        logger.debug(form, *arguments)
