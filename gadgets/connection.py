"""A node's connection: the guard around a target, and reading that ends when the stream does."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from gadgetron.external import constants

from gadgets import wire
from gadgets.wire import Endpoint
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

OnLoss = Callable[[Exception], None]


def guarded(target: Callable[[Any, OnLoss], None]) -> Callable[[Any], None]:
    """Make a target that tells its failures: a traceback in the log, message 8, then CLOSE.

    The CLOSE is sent as the connection's own context ends.  A peer that went away cannot be told
    anything: the error is raised, so that the process ends.  The target gets, beside the
    connection, a function to call where its reading thread finds the peer gone: then the error
    is raised at once, whatever is being computed.
    """

    @functools.wraps(target)
    def run(connection: Any) -> None:
        outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        connection.socket = endpoint = Endpoint(connection.socket.socket)

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
            logger.error("The node failed", exc_info=error)
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
    readers = dict(connection.readers)
    readers[constants.GADGET_MESSAGE_ISMRMRD_IMAGE] = wire.read_image
    while True:
        number = wire.message_id(connection.socket)
        if number == constants.GADGET_MESSAGE_CLOSE:
            connection.socket.finished = True
            return
        if number not in readers:
            raise InputError(
                f"a message with id {number} came, which this node cannot read: "
                f"known are {sorted(readers)}"
            )
        yield readers[number](connection.socket)
