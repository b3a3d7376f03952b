"""A node's connection: the guard around a target, and reading that ends when the stream does."""

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
    """The connection that gadgetron-python gives a target, over a socket that is read in bounds.

    Parameters
    ----------
    connected : the socket, its configuration and header read.
    config, header : their XML; an empty configuration has no properties.
    stall : see `Endpoint`.
    shared : what the scans of this process have in common, for the target.
    observer : ScanObserver of this scan; None takes that of `shared`.
    embedded : whether the peer is this package's own host, which may be told of a failure at once.

    Raises
    ------
    InputError
        For a document that cannot be read; the socket is left as it was.
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
        self.failure: Exception | None = None  # what a guarded target has told by itself

    def _read_config(self) -> tuple[Element | None, bytes]:
        return self._documents[0]

    def _read_header(self) -> tuple[Any, bytes]:
        return self._documents[1]


def run_target(target: Target, name: str, connection: NodeConnection) -> Exception | None:
    """Run a target to the end of its stream, telling the peer what it fails with.

    Returns
    -------
    What it failed with, or None.
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
    """Make a target that tells its failures: a traceback in the log, message 8, then CLOSE.

    Message 8 waits for the peer's CLOSE, see `tell`.  Our CLOSE is sent as the connection's own
    context ends.  A peer that went away cannot be told anything: the error is raised, so that the
    process ends.  The target gets, beside the connection, a function to call where its reading
    thread finds the peer gone: then the error is raised at once, whatever is being computed.
    """

    @functools.wraps(target)
    def run(connection: Any) -> None:
        outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        if not isinstance(connection.socket, Endpoint):  # of a process that Gadgetron started
            set_up()
            connection.socket = Endpoint(connection.socket.socket)
            connection.readers.update(wire.READERS)
        endpoint = connection.socket

        def attempt() -> None:
            try:
                target(connection, outcome.put)
                outcome.put(None)
            except Exception as error:  # noqa: BLE001  (nothing may end in silence)
                outcome.put(error)

        # A thread, so that the loss of the peer is heard while it samples.
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
    """Send message 8 to a Gadgetron server, once it has said CLOSE.

    Until then it sends, and an error that comes while it does often ends its process before it
    has told its own client: what still comes is read and dropped.

    Raises
    ------
    ConnectionError
        Where the peer has gone.
    """
    with contextlib.suppress(InputError):
        for _ in _messages(endpoint, readers):
            pass
    if not endpoint.finished:  # nobody can say where a message begins: the peer's pause has to do
        endpoint.drop()
    wire.write_error(endpoint, describe(error))


def describe(error: Exception) -> str:
    """One sentence for the other side."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def receive(connection: Any) -> Iterator[Any]:
    """Items of a connection until its CLOSE.

    Raises
    ------
    InputError
        For a message id that has no reader.
    StreamEnded
        At end of file without CLOSE.
    """
    return _messages(connection.socket, connection.readers)


def _messages(endpoint: Endpoint, readers: Mapping[int, Callable[[Any], Any]]) -> Iterator[Any]:
    while True:
        with endpoint.reading:  # a thread that reads ahead may still be at it as another drops
            if endpoint.finished:
                return
            if not endpoint.in_step:
                raise InputError("what comes now is no message any more")
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
        raise InputError(
            f"a message with id {number} came, which this node cannot read: "
            f"known are {sorted(readers)}"
        )
    try:
        return readers[number](endpoint)
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a message with id {number} is damaged: {error}") from error
