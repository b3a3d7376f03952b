"""Server for clients with scans and for nodes of Gadgetron servers."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.wire import Endpoint
from gadgets.service.later import Later, describe_outcomes
from gadgets.service.listening import LOOPBACK, format_address, listen
from gadgets.service.session import Session
from gadgets.service.shared import Shared
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

PORT = 9002
STALL_SECONDS = 60.0
HEALTH_SECONDS = 60.0
MAX_SESSIONS = 64


class Server:
    """Serves each connection in separate threads.

    Parameters
    ----------
    hosts : sequence of str, optional
        IPv4 or IPv6 addresses to listen on. Default: loopback.
    port : int, optional
        Port; 0 chooses a free one.
    stall : float, optional
        Timeout within a message, in seconds.
    chains : str, optional
        Folder of additional chains.
    default : str, optional
        Name of the chain for unknown names. Default: refuse them.
    later : Later, optional
        Deferred scans.

    Raises
    ------
    InputError
        The port is in use, an address is not available, or the default chain is unknown.
    """

    def __init__(
        self,
        hosts: Sequence[str] = LOOPBACK,
        port: int = PORT,
        *,
        stall: float = STALL_SECONDS,
        chains: str | None = None,
        default: str | None = None,
        later: Later | None = None,
    ) -> None:
        self.stall = stall
        self.chains = chains
        self.default = None if default is None else Chain.served(default, chains)
        self.later = Later() if later is None else later
        self._listeners = listen(hosts, port)
        self._wake, self._woken = socket.socketpair()
        self._sessions: dict[threading.Thread, Session] = {}
        self._stops = 0
        self._shared: Shared | None = None
        self._counting = threading.Lock()
        self._served = self._failed = 0
        self.scans_done = dict.fromkeys(("complete", "failed"), 0)

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return int(self._listeners[0].getsockname()[1])

    @property
    def addresses(self) -> list[str]:
        """Addresses that the server listens on, as ADDRESS:PORT."""
        return [format_address(listener.getsockname()) for listener in self._listeners]

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._listeners[0].fileno() >= 0

    @property
    def state(self) -> str:
        """One of loading, ready and draining (open scans finish, new ones are refused)."""
        if self._stops:
            return "draining"
        return "loading" if self._shared is None else "ready"

    @property
    def scans_open(self) -> int:
        """Number of scans in progress."""
        return sum(session.started for session in self.open_connections)

    @property
    def scans_waiting(self) -> int:
        """Number of scans waiting for the device."""
        return 0 if self._shared is None else self._shared.turns.waiting

    @property
    def device(self) -> str:
        """Device of the reconstructions; empty while weights are loaded."""
        if self._shared is None:
            return ""
        from scoremri_core.recon.request import describe_device

        return describe_device(self._shared.device)

    @property
    def priors(self) -> str:
        """Names of the priors that are loaded."""
        return "" if self._shared is None else ", ".join(self._shared.priors)

    @property
    def open_connections(self) -> list[Session]:
        """Sessions of the open connections."""
        return list(self._sessions.values())

    def run(self, shared: Shared) -> None:
        """Serve until `stop`, including connections that were made before."""
        names = itertools.count(1)
        self.later.resume(shared)
        self._shared = shared
        logger.info("Serving on %s", " and ".join(self.addresses))
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._woken):
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ)
            logged = time.monotonic()
            while not self._stops:
                for key, _ in selector.select(HEALTH_SECONDS):
                    if key.fileobj is not self._woken and not self._stops:
                        self._accept(key.fileobj, next(names), shared)  # type: ignore[arg-type]
                if time.monotonic() - logged >= HEALTH_SECONDS:
                    logged = time.monotonic()
                    self._log_health(shared)
        self._stop_listening()
        self._finish()

    def stop(self) -> None:
        """Refuse new connections and finish open scans; on the second call, end them.

        May be called from a signal handler and from other threads.
        """
        self._stops += 1
        with contextlib.suppress(OSError):  # already stopped
            self._wake.send(b"\0")

    def close(self) -> None:
        """Release the port without serving."""
        self._stop_listening()
        self._wake.close()

    def _accept(self, listener: socket.socket, number: int, shared: Shared) -> None:
        try:
            connected, address = listener.accept()
        except OSError as error:  # the peer has gone, or no file descriptors are left
            logger.warning("cannot accept a connection: %s", error)
            time.sleep(0.1)
            return
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        endpoint = Endpoint(connected, self.stall)
        full = len(self._sessions) >= MAX_SESSIONS
        if full:
            logger.warning("%s open: refusing another", counted(len(self._sessions), "connection"))
        if len(self._sessions) >= 2 * MAX_SESSIONS:  # too many to send a refusal
            endpoint.abandon()
            return
        session = Session(
            endpoint,
            f"connection {number}",
            shared,
            chains=self.chains,
            default=self.default,
            later=self.later,
            refusal="the server has too many connections" if full else None,
        )
        thread = threading.Thread(
            target=self._serve, args=(session,), name=session.name, daemon=True
        )
        logger.info(
            "%s: from %s, %d open", session.name, format_address(address), len(self._sessions) + 1
        )
        self._sessions[thread] = session
        thread.start()

    def _serve(self, session: Session) -> None:
        try:
            success = session.run()
            with self._counting:
                self._served += success
                self._failed += not success
                if session.scanned:
                    self.scans_done["complete" if success else "failed"] += 1
        finally:
            del self._sessions[threading.current_thread()]

    def _finish(self) -> None:
        """Wait for open scans; close connections without a scan."""
        logger.info("Stopping: %s open", counted(len(self._sessions), "connection"))
        while self._sessions and self._stops < 2:
            for thread, session in list(self._sessions.items()):
                if not session.started:
                    session.endpoint.abandon()
                thread.join(0.1)
        for session in list(self._sessions.values()):
            logger.warning("%s: ended during its scan", session.name)
            session.endpoint.abandon()
        self.later.close()
        self._wake.close()
        logger.info(
            "Stopped: %s served, %d failed", counted(self._served, "connection"), self._failed
        )
        if later := describe_outcomes(self.later.outcomes):
            logger.info("Deferred scans: %s", later)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._woken.close()

    def _log_health(self, shared: Shared) -> None:
        if self._sessions:
            logger.info(
                "Health: %s open, %d waiting for the device, %d served, %d failed%s",
                counted(len(self._sessions), "connection"),
                shared.turns.waiting,
                self._served,
                self._failed,
                _memory(),
            )


def _memory() -> str:
    """Format the resident memory; empty if unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return ""
    return f", {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB"
