"""Connection of a node: error handling around a target, and bounded reading."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from gadgetron.external import constants
from gadgetron.external.connection import Connection

from gadgets.process import set_up
from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.documents import read_header
from gadgets.protocol.gadgetron.wire import Endpoint
from gadgets.threads import start
from scoremri_core.errors import InputError
from scoremri_core.scans.documents import parse

logger = logging.getLogger(__name__)

OnLoss = Callable[[Exception], None]
Target = Callable[[Any], None]


class NodeConnection(Connection):
    """Connection of gadgetron-python over an `Endpoint`.

    Parameters
    ----------
    connected : socket.socket
        Socket, after configuration and header.
    config, header : str
        XML documents; an empty configuration has no properties.
    stall : float, optional
        As for `Endpoint`.
    shared : Shared, optional
        State shared by the scans of this process.
    observer : ScanObserver, optional
        Observer of this scan. Default: that of `shared`.
    embedded : bool, optional
        Whether the peer is the embedded host, which accepts an error at any time.

    Raises
    ------
    InputError
        A document is invalid; the socket stays open.
    """

    def __init__(
        self,
        connected: socket.socket,
        config: str,
        header: str,
        *,
        stall: float | None = None,
        shared: Any = None,
        observer: Any = None,
        embedded: bool = False,
    ) -> None:
        root = parse(config, "the configuration of the node") if config.strip() else None
        self._documents = (root, config.encode()), (read_header(header), header.encode())
        super().__init__(connected)
        self.socket = Endpoint(connected, stall)
        self.readers.update(wire.READERS)
        self.shared = shared
        self.observer = observer
        self.embedded = embedded
        self.failure: Exception | None = None  # error reported by a guarded target

    def _read_config(self) -> tuple[Element | None, bytes]:
        return self._documents[0]

    def _read_header(self) -> tuple[Any, bytes]:
        return self._documents[1]


def run_target(target: Target, name: str, connection: NodeConnection) -> Exception | None:
    """Run a target to the end of its stream and report its failure to the peer.

    Returns
    -------
    Exception or None
    """
    try:
        with connection:
            try:
                target(connection)
            except ConnectionError:
                raise
            except Exception as error:
                logger.error("%s failed: %s", name, describe(error), exc_info=error)
                _tell(connection, error)
                return error
    except OSError as error:
        logger.debug("%s lost its connection: %s", name, error)
        return error
    return connection.failure


def guarded(target: Callable[[Any, OnLoss], None]) -> Target:
    """Wrap a target so that its failures are logged and sent to the peer as message 8.

    Message 8 is sent after the peer's CLOSE, see `tell`; CLOSE follows when the context of the
    connection ends. If the peer has disconnected, the error is raised, so that the process ends.

    Parameters
    ----------
    target : callable
        Function of the connection and of a callback, which its reading thread calls with the
        exception if the peer disconnects; the error is then raised without waiting for the target.

    Returns
    -------
    callable
        Function of the connection.
    """

    @functools.wraps(target)
    def run(connection: Any) -> None:
        outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        if not isinstance(connection.socket, Endpoint):  # in a process started by Gadgetron
            set_up()
            connection.socket = Endpoint(connection.socket.socket)
            connection.readers.update(wire.READERS)
        endpoint = connection.socket

        def attempt() -> None:
            try:
                target(connection, outcome.put)
                outcome.put(None)
            except Exception as error:  # noqa: BLE001  (reported below)
                outcome.put(error)

        # in a thread, so that a lost connection is noticed while sampling
        start(attempt, name=target.__name__)
        error = outcome.get()
        if isinstance(error, ConnectionError):
            logger.error("The stream ended early: %s", error)
            endpoint.abandon()
            raise error
        if error is not None:
            logger.error("The node failed: %s", describe(error), exc_info=error)
            connection.failure = error
            _tell(connection, error)

    return run


def _tell(connection: Any, error: Exception) -> None:
    if getattr(connection, "embedded", False):
        wire.write_error(connection.socket, describe(error))
    else:
        tell(connection.socket, connection.readers, error)


def tell(endpoint: Endpoint, readers: Mapping[int, Callable[[Any], Any]], error: Exception) -> None:
    """Send message 8 to a Gadgetron server after its CLOSE.

    An error message during input often crashes Gadgetron before it informs its client. Input until
    CLOSE is discarded.

    Parameters
    ----------
    endpoint : Endpoint
        Connection to the server.
    readers : mapping of int to callable
        Readers of messages by id.
    error : Exception
        Error to report.

    Raises
    ------
    ConnectionError
        The peer has disconnected.
    """
    with contextlib.suppress(InputError):
        for _ in _messages(endpoint, readers):
            pass
    if not endpoint.finished:  # out of step with the messages: wait for a pause
        endpoint.drop()
    wire.write_error(endpoint, describe(error))


def describe(error: Exception) -> str:
    """Format an error for the peer."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def receive(connection: Any) -> Iterator[Any]:
    """Yield the items of a connection until CLOSE.

    Raises
    ------
    InputError
        A message has an unknown id.
    StreamEnded
        The stream ends without CLOSE.
    """
    return _messages(connection.socket, connection.readers)


def _messages(endpoint: Endpoint, readers: Mapping[int, Callable[[Any], Any]]) -> Iterator[Any]:
    while True:
        with endpoint.reading:  # another thread may be reading
            if endpoint.finished:
                return
            if not endpoint.in_step:
                raise InputError("cannot read further messages after a damaged one")
            endpoint.in_step = False
            number = wire.message_id(endpoint)
            if number == constants.GADGET_MESSAGE_CLOSE:
                endpoint.finished = True
                return
            item = _read(number, endpoint, readers)
            endpoint.in_step = True
        yield item


def _read(number: int, endpoint: Endpoint, readers: Mapping[int, Callable[[Any], Any]]) -> Any:
    if number not in readers:
        raise InputError(f"unknown message id {number}: a node reads {sorted(readers)}")
    try:
        return readers[number](endpoint)
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a message with id {number} is damaged: {error}") from error
