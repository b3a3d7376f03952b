"""A resident server for clients with scans, and for nodes of Gadgetron servers."""

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
from gadgets.service.listening import LOOPBACK, listen, written
from gadgets.service.session import Session
from gadgets.service.shared import Shared

logger = logging.getLogger(__name__)

PORT = 9002
STALL_SECONDS = 60.0
HEALTH_SECONDS = 60.0
MAX_SESSIONS = 64


class Server:
    """Listens, and serves each connection in threads of its own.

    Parameters
    ----------
    hosts : addresses to listen on, IPv4 or IPv6; of the default, those that this machine has.
    port : 0 takes a free one.
    stall : seconds that a client may pause in the middle of a message.
    chains : folder of chains besides those that come with the package.
    default : name of the chain for clients that ask for one which is not known; None refuses them.
    later : keeps images for clients that do not wait.

    Raises
    ------
    InputError
        Where the port is in use, an address cannot be listened on, or there is no such chain.
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
        """The port."""
        return int(self._listeners[0].getsockname()[1])

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ADDRESS:PORT."""
        return [written(listener.getsockname()) for listener in self._listeners]

    @property
    def listening(self) -> bool:
        """Whether new connections are taken."""
        return self._listeners[0].fileno() >= 0

    @property
    def state(self) -> str:
        """One of loading, ready, and draining, in which open scans finish and none begins."""
        if self._stops:
            return "draining"
        return "loading" if self._shared is None else "ready"

    @property
    def scans_open(self) -> int:
        """Scans under way."""
        return sum(session.started for session in self.open_connections)

    @property
    def scans_waiting(self) -> int:
        """Scans that wait for the device."""
        return 0 if self._shared is None else self._shared.turns.waiting

    @property
    def open_connections(self) -> list[Session]:
        """Connections that are being served."""
        return list(self._sessions.values())

    def run(self, shared: Shared) -> None:
        """Serve until `stop`; connections that came earlier have waited."""
        names = itertools.count(1)
        self.later.resume(shared)
        self._shared = shared
        logger.info("Serving on %s", " and ".join(self.addresses))
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._woken):
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ)
            told = time.monotonic()
            while not self._stops:
                for key, _ in selector.select(HEALTH_SECONDS):
                    if key.fileobj is not self._woken and not self._stops:
                        self._accept(key.fileobj, next(names), shared)  # type: ignore[arg-type]
                if time.monotonic() - told >= HEALTH_SECONDS:
                    told = time.monotonic()
                    self._log_health(shared)
        self._stop_listening()
        self._finish()

    def stop(self) -> None:
        """Refuse new connections and let open scans finish; a second time, end them too.

        May be called from a signal handler and from other threads.
        """
        self._stops += 1
        with contextlib.suppress(OSError):  # it has stopped listening already
            self._wake.send(b"\0")

    def close(self) -> None:
        """Give the port back without having served."""
        self._stop_listening()
        self._wake.close()

    def _accept(self, listener: socket.socket, number: int, shared: Shared) -> None:
        try:
            connected, address = listener.accept()
        except OSError as error:  # it was gone before we came, or there are no files left
            logger.warning("a connection could not be accepted: %s", error)
            time.sleep(0.1)
            return
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        endpoint = Endpoint(connected, self.stall)
        full = len(self._sessions) >= MAX_SESSIONS
        if full:
            logger.warning("%d connections are open: one more is refused", len(self._sessions))
        if len(self._sessions) >= 2 * MAX_SESSIONS:  # as many may be told so
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
        logger.info("%s: from %s, %d open", session.name, written(address), len(self._sessions) + 1)
        self._sessions[thread] = session
        thread.start()

    def _serve(self, session: Session) -> None:
        try:
            well = session.run()
            with self._counting:
                self._served += well
                self._failed += not well
                if session.scanned:
                    self.scans_done["complete" if well else "failed"] += 1
        finally:
            del self._sessions[threading.current_thread()]

    def _finish(self) -> None:
        """Wait for open scans; drop connections that have none."""
        logger.info("Stopping: %d connections are open", len(self._sessions))
        while self._sessions and self._stops < 2:
            for thread, session in list(self._sessions.items()):
                if not session.started:
                    session.endpoint.abandon()
                thread.join(0.1)
        for session in list(self._sessions.values()):
            logger.warning("%s: ended in the middle of its scan", session.name)
            session.endpoint.abandon()
        self.later.close()
        self._wake.close()
        logger.info("Stopped: %d connections served, %d failed", self._served, self._failed)
        if later := describe_outcomes(self.later.outcomes):
            logger.info("Scans of later=true: %s", later)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._woken.close()

    def _log_health(self, shared: Shared) -> None:
        if self._sessions:
            logger.info(
                "Health: %d connections open, %d wait for the device, %d served, %d failed%s",
                len(self._sessions),
                shared.turns.waiting,
                self._served,
                self._failed,
                _memory(),
            )


def _memory() -> str:
    """Resident memory, where the system tells it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return ""
    return f", {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB"
