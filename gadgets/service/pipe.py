"""MRD streams on standard input and output."""

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
    """Two file descriptors with the methods of a socket that `Endpoint` uses.

    Parameters
    ----------
    source, sink : int
        File descriptors to read from and to write to.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._ahead = b""

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end, without consuming them."""
        while len(self._ahead) < count:
            part = os.read(self._source, count - len(self._ahead))
            if not part:
                break
            self._ahead += part
        return self._ahead[:count]

    def recv(self, count: int) -> bytes:
        """Read at most `count` bytes; none at the end."""
        if not self._ahead:
            return os.read(self._source, count)
        part, self._ahead = self._ahead[:count], self._ahead[count:]
        return part

    def sendall(self, data: Any) -> None:
        """Write all of a bytes-like object.

        Raises
        ------
        InputError
            The reader has closed the pipe.
        """
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[os.write(self._sink, rest) :]
        except BrokenPipeError as error:
            raise InputError(f"{OUTPUT} was closed by its reader before the last image") from error

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: pipes have no timeout, and their end is noticed."""


@contextlib.contextmanager
def standard_pipe() -> Iterator[Pipe]:
    """Yield standard input and output for data; prints of libraries go to standard error.

    Raises
    ------
    InputError
        One of them is a terminal, or the output is closed.
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
    """Reader and writer of one version of MRD."""

    def header(self) -> str:
        """Read the ISMRMRD header, as XML."""

    def items(self) -> Iterator[Any]:
        """Yield acquisitions and waveforms until the end of the scan."""

    def write(self, item: Any) -> None:
        """Write an image or a waveform."""

    def close(self) -> None:
        """Write the end of the stream; omitted on failure."""


class Version1:
    """Reader and writer of MRD version 1, the messages of Gadgetron's protocol."""

    def __init__(self, pipe: Pipe) -> None:
        self._endpoint = Endpoint(cast(socket.socket, pipe))

    def header(self) -> str:
        """See `Format`; a configuration before the header is ignored.

        Raises
        ------
        InputError
            The stream begins with something else, or ends.
        """
        with _reading():
            while (number := wire.message_id(self._endpoint)) != constants.GADGET_MESSAGE_HEADER:
                if number == constants.GADGET_MESSAGE_FILENAME:
                    name = wire.read_config_name(self._endpoint)
                    logger.warning("%s: chain name '%s' ignored", INPUT, name)
                elif number == constants.GADGET_MESSAGE_CONFIG:
                    wire.read_document(self._endpoint, wire.CONFIGURATION)
                    logger.warning("%s: chain in the stream ignored", INPUT)
                elif number == constants.GADGET_MESSAGE_TEXT:
                    logger.info("%s: %s", INPUT, wire.read_text(self._endpoint))
                else:
                    raise ChainError(
                        f"{INPUT}: expected an ISMRMRD header (message 3) or an MRD v2 stream, got "
                        f"message {number}"
                    )
            return wire.read_document(self._endpoint, wire.HEADER)

    def items(self) -> Iterator[Any]:
        """See `Format`.

        Raises
        ------
        InputError
            The stream ends without CLOSE, or holds an invalid message.
        """
        with _reading():
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
def _reading() -> Iterator[None]:
    try:
        yield
    except StreamEnded as error:
        raise InputError(f"{INPUT} ended before the scan did: there was no CLOSE") from error
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{INPUT}: damaged message ({error})") from error
