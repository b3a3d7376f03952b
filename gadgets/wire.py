"""Gadgetron's wire protocol: one end of a socket, for nodes, the embedded host and the client."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from typing import Any

import ismrmrd
from gadgetron.external import constants
from gadgetron.external.readers import read_acquisition, read_waveform

from scoremri_core.errors import InputError

CHUNK = 1 << 20  # bytes allocated ahead of what has arrived
MAX_TEXT = 1 << 26  # bytes of a configuration, a header, a text or the attributes of an image
MAX_IMAGE = 1 << 32  # bytes of the pixels of one image
DRAIN_SECONDS = 3.0

CONFIG_NAME_BYTES = 1024

NAMES = {
    constants.GADGET_MESSAGE_CLOSE: "CLOSE",
    constants.GADGET_MESSAGE_TEXT: "TEXT",
    constants.GADGET_MESSAGE_ERROR: "ERROR",
}


class ChainError(InputError):
    """A chain that could not be run, or failed: the message is the failing side's own."""


class StreamEnded(ConnectionError):  # noqa: N818  (it says what happened, like StopIteration)
    """The peer went away without CLOSE."""


class Endpoint:
    """One end of a stream, with the read, write and close that gadgetron-python expects of it.

    Its own socket wrapper spins when the peer goes away, allocates whatever a length field says,
    and loses what was just sent when unread data remain as it closes.
    """

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        self.socket = connected
        self.socket.settimeout(None)
        self.finished = False  # the peer's CLOSE was read
        self._closed = False

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises
        ------
        StreamEnded
            At end of file.
        """
        parts = bytearray()
        while len(parts) < count:
            part = self.socket.recv(min(count - len(parts), CHUNK))
            if not part:
                raise StreamEnded("the peer closed the connection without a CLOSE message")
            parts += part
        return bytes(parts)

    def write(self, data: Any) -> None:
        """Send all of a bytes-like object."""
        self.socket.sendall(data)

    def close(self) -> None:
        """Send CLOSE, once, and close the socket.

        Where the peer is still sending, what it sends is read and dropped for a while: closing
        over unread data would reset the connection and take our last words with it.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.write(constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_CLOSE))
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(DRAIN_SECONDS)
            while not self.finished and self.socket.recv(CHUNK):
                pass
        except OSError:
            pass  # the peer is gone, and there is nothing left to tell it
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the socket without CLOSE; a read or write that waits on it ends."""
        self._closed = True
        with contextlib.suppress(OSError):  # not connected any more
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def message_id(endpoint: Endpoint) -> int:
    """Read the id that every message starts with."""
    return int(constants.GadgetMessageIdentifier.unpack(endpoint.read(2))[0])


def read_text(endpoint: Endpoint, length: struct.Struct = constants.uint32) -> str:
    """Read a length and that many bytes of UTF-8."""
    (size,) = length.unpack(endpoint.read(length.size))
    if size > MAX_TEXT:
        raise ChainError(f"a text message of {size} bytes was announced: at most {MAX_TEXT}")
    return endpoint.read(size).rstrip(b"\0").decode("utf-8", "replace")


def read_image(endpoint: Endpoint) -> ismrmrd.Image:
    """Read an image, once its sizes are seen to be within bounds."""
    head = endpoint.read(ctypes.sizeof(ismrmrd.ImageHeader))
    header = ismrmrd.ImageHeader.from_buffer_copy(head)
    attributes = endpoint.read(constants.uint64.size)
    (attribute_bytes,) = constants.uint64.unpack(attributes)
    x, y, z = header.matrix_size
    pixel_bytes = 16 * x * y * z * header.channels
    if attribute_bytes > MAX_TEXT or pixel_bytes > MAX_IMAGE:
        raise ChainError(
            f"an image of {x} x {y} x {z}, {header.channels} channels and {attribute_bytes} "
            "attribute bytes was announced: too large"
        )
    pending = [attributes, head]

    def read(count: int) -> bytes:
        return pending.pop() if pending else endpoint.read(count)

    return ismrmrd.Image.deserialize_from(read)


READERS = {
    constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION: read_acquisition,
    constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM: read_waveform,
    constants.GADGET_MESSAGE_ISMRMRD_IMAGE: read_image,
}


def read_message(endpoint: Endpoint) -> Any:
    """Read one message of a stream.

    Returns
    -------
    An acquisition, waveform or image; str for TEXT; None for CLOSE.

    Raises
    ------
    ChainError
        For an ERROR message, with its text, and for an id that is not known.
    StreamEnded
        At end of file.
    """
    number = message_id(endpoint)
    if number == constants.GADGET_MESSAGE_CLOSE:
        endpoint.finished = True
        return None
    if number == constants.GADGET_MESSAGE_TEXT:
        return read_text(endpoint)
    if number == constants.GADGET_MESSAGE_ERROR:
        raise ChainError(read_text(endpoint, constants.uint64))
    if number not in READERS:
        raise ChainError(f"a message with id {number} came: known are {sorted(READERS)}")
    return READERS[number](endpoint)


def write_config(endpoint: Endpoint, xml: str) -> None:
    """Send a configuration."""
    _write_text(endpoint, constants.GADGET_MESSAGE_CONFIG, xml)


def write_config_name(endpoint: Endpoint, name: str) -> None:
    """Send the name of a configuration that the server has."""
    identifier = constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_FILENAME)
    encoded = name.encode()
    if len(encoded) >= CONFIG_NAME_BYTES:
        raise ChainError(f"the name of a chain has {len(encoded)} bytes: at most 1023")
    endpoint.write(identifier + encoded.ljust(CONFIG_NAME_BYTES, b"\0"))


def write_header(endpoint: Endpoint, xml: str) -> None:
    """Send an ISMRMRD header."""
    _write_text(endpoint, constants.GADGET_MESSAGE_HEADER, xml)


def write_error(endpoint: Endpoint, message: str) -> None:
    """Tell the server that this node failed, and why."""
    encoded = message.encode()
    endpoint.write(struct.pack("<HQ", constants.GADGET_MESSAGE_ERROR, len(encoded)) + encoded)


def write_item(endpoint: Endpoint, item: Any) -> None:
    """Send an acquisition, a waveform or an image."""
    ids: tuple[tuple[Any, int], ...] = (
        (ismrmrd.Acquisition, constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION),
        (ismrmrd.Waveform, constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM),
        (ismrmrd.Image, constants.GADGET_MESSAGE_ISMRMRD_IMAGE),
    )
    for kind, number in ids:
        if isinstance(item, kind):
            endpoint.write(constants.GadgetMessageIdentifier.pack(number) + item.to_bytes())
            return
    raise ChainError(f"a {type(item).__name__} cannot be sent to a node")


def write_close(endpoint: Endpoint) -> None:
    """Say that nothing more will be sent; reading goes on."""
    endpoint.write(constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_CLOSE))


def _write_text(endpoint: Endpoint, number: int, text: str) -> None:
    encoded = text.encode()
    endpoint.write(struct.pack("<HI", number, len(encoded)) + encoded)
