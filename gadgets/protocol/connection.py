"""A node's connection: the guard around a target, and reading that ends when the stream does."""

from __future__ import annotations

import functools
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import Element

from gadgetron.external import constants
from gadgetron.external.connection import Connection

from gadgets.protocol import wire
from gadgets.protocol.documents import read_header
from gadgets.protocol.wire import Endpoint
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
    """

    def __init__(
        self,
        connected: socket.socket,
        config: str,
        header: str,
        *,
        stall: float | None = None,
        shared: Any = None,
    ) -> None:
        self._xml = config, header
        super().__init__(connected)
        self.socket = Endpoint(connected, stall)
        self.readers.update(wire.READERS)
        self.shared = shared
        self.failure: Exception | None = None  # what a guarded target has told by itself

    def _read_config(self) -> tuple[Element | None, bytes]:
        xml = self._xml[0]
        root = parse(xml, "the configuration of the node") if xml.strip() else None
        return root, xml.encode()

    def _read_header(self) -> tuple[Any, bytes]:
        xml = self._xml[1]
        return read_header(xml), xml.encode()


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
                wire.write_error(connection.socket, describe(error))
                return error
    except OSError as error:
        logger.debug("%s lost its connection: %s", name, error)
        return error
    return connection.failure


def guarded(target: Callable[[Any, OnLoss], None]) -> Target:
    """Make a target that tells its failures: a traceback in the log, message 8, then CLOSE.

    The CLOSE is sent as the connection's own context ends.  A peer that went away cannot be told
    anything: the error is raised, so that the process ends.  The target gets, beside the
    connection, a function to call where its reading thread finds the peer gone: then the error
    is raised at once, whatever is being computed.
    """

    @functools.wraps(target)
    def run(connection: Any) -> None:
        outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        if not isinstance(connection.socket, Endpoint):  # of a process that Gadgetron started
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
        threading.Thread(target=attempt, name=target.__name__, daemon=True).start()
        error = outcome.get()
        if isinstance(error, ConnectionError):
            logger.error("The stream ended early: %s", error)
            endpoint.abandon()
            raise error
        if error is not None:
            logger.error("The node failed: %s", describe(error), exc_info=error)
            connection.failure = error
            wire.write_error(endpoint, describe(error))

    return run


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
    while True:
        number = wire.message_id(connection.socket)
        if number == constants.GADGET_MESSAGE_CLOSE:
            connection.socket.finished = True
            return
        if number not in connection.readers:
            raise InputError(
                f"a message with id {number} came, which this node cannot read: "
                f"known are {sorted(connection.readers)}"
            )
        try:
            item = connection.readers[number](connection.socket)
        except (ValueError, TypeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"a message with id {number} is damaged: {error}") from error
        yield item
