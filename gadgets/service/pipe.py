"""Standard input and output as a stream of MRD messages, for programs that work by pipes."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, Protocol, cast

from gadgetron.external import constants

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.wire import ChainError, Endpoint, StreamEnded
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

INPUT, OUTPUT = "standard input", "standard output"


class Pipe:
    """Two file descriptors, with the few methods of a socket that an `Endpoint` calls.

    Parameters
    ----------
    source : read from.
    sink : written to.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._ahead = b""

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer at the end; they are still to be read."""
        while len(self._ahead) < count:
            part = os.read(self._source, count - len(self._ahead))
            if not part:
                break
            self._ahead += part
        return self._ahead[:count]

    def recv(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        if not self._ahead:
            return os.read(self._source, count)
        part, self._ahead = self._ahead[:count], self._ahead[count:]
        return part

    def sendall(self, data: Any) -> None:
        """Write all of a bytes-like object.

        Raises
        ------
        InputError
            Where nobody reads any more.
        """
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[os.write(self._sink, rest) :]
        except BrokenPipeError as error:
            raise InputError(f"{OUTPUT} was closed by its reader before the last image") from error

    def settimeout(self, seconds: float | None) -> None:
        """Pipes wait as long as it takes: who ends them is found at once."""


@contextlib.contextmanager
def standard_pipe() -> Iterator[Pipe]:
    """Standard input and output for data alone.

    What any library prints meanwhile goes to standard error: it would be taken for data.

    Raises
    ------
    InputError
        Where one of them is a terminal, or the output is closed.
    """
    if sys.__stdout__ is None:
        raise InputError(f"{OUTPUT} is closed: expected a pipe or a file for images")
    for descriptor, name, use in ((0, INPUT, "a scan"), (1, OUTPUT, "images")):
        if os.isatty(descriptor):
            raise InputError(f"{name} is a terminal: expected a pipe or a file for {use}")
    sys.stdout.flush()
    sink = os.dup(1)
    os.dup2(2, 1)
    try:
        yield Pipe(0, sink)
    finally:
        sys.stdout.flush()
        os.dup2(sink, 1)
        os.close(sink)


class Format(Protocol):
    """One version of MRD, read and written."""

    def header(self) -> str:
        """The ISMRMRD header, which comes first, as XML."""

    def items(self) -> Iterator[Any]:
        """Acquisitions and waveforms, to the end of the scan."""

    def write(self, item: Any) -> None:
        """Send an image or a waveform."""

    def close(self) -> None:
        """Say that all was sent; what failed ends without."""


class Version1:
    """The messages of Gadgetron's protocol, as ISMRMRD's own tools write and read them."""

    def __init__(self, pipe: Pipe) -> None:
        self._endpoint = Endpoint(cast(socket.socket, pipe))

    def header(self) -> str:
        """See `Format`; a configuration before it is passed over: the chain is the caller's.

        Raises
        ------
        InputError
            Where something else comes first, or the stream ends.
        """
        with _whole():
            while (number := wire.message_id(self._endpoint)) != constants.GADGET_MESSAGE_HEADER:
                if number == constants.GADGET_MESSAGE_FILENAME:
                    name = wire.read_config_name(self._endpoint)
                    logger.warning("%s names the chain '%s', which is not read", INPUT, name)
                elif number == constants.GADGET_MESSAGE_CONFIG:
                    wire.read_document(self._endpoint, wire.CONFIGURATION)
                    logger.warning("%s brings a chain of its own, which is not read", INPUT)
                elif number == constants.GADGET_MESSAGE_TEXT:
                    logger.info("%s: %s", INPUT, wire.read_text(self._endpoint))
                else:
                    raise ChainError(
                        f"{INPUT}: expected an ISMRMRD header, message 3, or an MRD v2 stream; "
                        f"message {number} came"
                    )
            return wire.read_document(self._endpoint, wire.HEADER)

    def items(self) -> Iterator[Any]:
        """See `Format`.

        Raises
        ------
        InputError
            Where the stream ends before its CLOSE or holds what is no message.
        """
        with _whole():
            while (item := wire.read_message(self._endpoint)) is not None:
                if isinstance(item, str):
                    logger.info("%s: %s", INPUT, item)
                else:
                    yield item

    def write(self, item: Any) -> None:
        """See `Format`."""
        wire.write_item(self._endpoint, item)

    def close(self) -> None:
        """See `Format`."""
        wire.write_close(self._endpoint)


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except StreamEnded as error:
        raise InputError(f"{INPUT} ended before the scan did: there was no CLOSE") from error
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{INPUT}: a damaged message ({error})") from error
