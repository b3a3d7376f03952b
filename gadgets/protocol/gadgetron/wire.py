"""Gadgetron's wire protocol: one end of a socket, for nodes, the embedded host and the client."""

from __future__ import annotations

import contextlib
import ctypes
import math
import socket
import struct
import threading
import time
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.external import constants
from ismrmrd.image import dtype_mapping

from scoremri_core.errors import InputError
from scoremri_core.scans.documents import decoded, parse

# What a length field announces is never allocated at once: memory grows with what has arrived, at
# most one chunk ahead of it, and up to these bounds.
CHUNK = 1 << 20
MAX_TEXT = 1 << 24  # bytes of a configuration, a header, a text or the attributes of an image
MAX_ITEM = 1 << 30  # bytes of one readout or waveform
MAX_IMAGE = 1 << 32  # bytes of the pixels of one image, or of any other part of a message

QUIET_SECONDS = 3.0  # of a peer that still sends as the connection closes,
DRAIN_SECONDS = 60.0  # and how long it may go on sending

CONFIG_NAME_BYTES = 1024
# documents, as messages name them
CONFIGURATION, HEADER = "the configuration", "the ISMRMRD header"
ATTRIBUTES = "the attributes of an image"
FAILED = "the scan failed: "  # begins a text that tells a client why; message 8 would abort most

# ismrmrd holds the 32-bit integers of the wire in 64 bits, and would send them so.
PIXELS = {k: v for k, v in dtype_mapping.items() if k != ismrmrd.DATATYPE_INT}


class ChainError(InputError):
    """A chain that could not be run, or failed: the message is the failing side's own."""


class StreamEnded(ConnectionError):  # noqa: N818  (it says what happened, like StopIteration)
    """The peer went away without CLOSE."""


class Stalled(ChainError):  # noqa: N818
    """The peer stopped in the middle of a message."""


class Endpoint:
    """One end of a stream, with the read, write and close that gadgetron-python expects of it.

    Its own socket wrapper spins when the peer goes away, allocates whatever a length field says,
    and loses what was just sent when unread data remain as it closes.
    """

    def __init__(self, connected: socket.socket, stall: float | None = None) -> None:
        """Take over a connected socket.

        `stall` bounds, in seconds, how long the peer may pause in the middle of a message, and
        how long it may leave what is sent to it unread.
        """
        self.socket = connected
        self.stall = stall
        self.socket.settimeout(stall)
        self.patient = True  # between messages: a scanner may pause there
        self.received = 0  # bytes
        self.finished = False  # the peer's CLOSE was read
        self.reading = threading.Lock()  # of whoever reads one message of a stream
        self.in_step = True  # the next byte begins a message: not so where one could not be read
        self._closed = False

    def read(self, count: int, patient: bool = False) -> bytearray:
        """Exactly `count` bytes; if `patient`, and as long as the endpoint is, however late.

        Raises
        ------
        StreamEnded
            At end of file.
        Stalled
            Where the peer pauses for too long.
        ChainError
            For a count beyond all bounds.
        """
        if count > MAX_IMAGE:
            raise ChainError(f"a part of {count} bytes was announced: at most {MAX_IMAGE}")
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.socket.recv(min(count - len(parts), CHUNK))
            except TimeoutError as error:
                if patient and self.patient and not parts:
                    continue
                raise Stalled(f"nothing came for {self.stall:g} s where more was due") from error
            except OSError as error:
                raise StreamEnded(f"the connection was lost ({error})") from error
            if not part:
                raise StreamEnded("the peer closed the connection without a CLOSE message")
            parts += part
            self.received += len(part)
        return parts

    def comes(self) -> bool:
        """Whether the peer sends something, or goes, before it has paused for too long."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            pass  # reading tells what it is
        return True

    def drop(self) -> None:
        """Read and drop whatever comes, until CLOSE was read, the peer pauses or has gone."""
        deadline = time.monotonic() + DRAIN_SECONDS
        self.socket.settimeout(QUIET_SECONDS)
        with contextlib.suppress(OSError):
            while not self.finished and self.socket.recv(CHUNK):
                if time.monotonic() > deadline:
                    break

    def write(self, data: Any) -> None:
        """Send all of a bytes-like object.

        Raises
        ------
        OSError
            Where the peer is gone, or leaves what is sent unread for too long.
        """
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        for start in range(0, len(view), CHUNK):  # a timeout is for one call, however much it sends
            try:
                self.socket.sendall(view[start : start + CHUNK])
            except TimeoutError as error:
                raise StreamEnded(f"what was sent stayed unread for {self.stall:g} s") from error

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
            self.drop()
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


def message_id(endpoint: Endpoint, patient: bool = True) -> int:
    """Read the id that every message starts with; a scanner may pause before it."""
    return int(constants.GadgetMessageIdentifier.unpack(endpoint.read(2, patient))[0])


def read_text(endpoint: Endpoint, length: struct.Struct = constants.uint32) -> str:
    """Read a length and that many bytes of UTF-8."""
    return _read_bytes(endpoint, length).rstrip(b"\0").decode("utf-8", "replace")


def read_document(endpoint: Endpoint, name: str) -> str:
    """Read a length and an XML document, in whatever encoding it declares."""
    return decoded(bytes(_read_bytes(endpoint, constants.uint32)), name)


def _read_bytes(endpoint: Endpoint, length: struct.Struct) -> bytearray:
    (size,) = length.unpack(endpoint.read(length.size))
    if size > MAX_TEXT:
        raise ChainError(f"a text message of {size} bytes was announced: at most {MAX_TEXT}")
    return endpoint.read(size)


def read_config(endpoint: Endpoint) -> str:
    """Read the message of a configuration."""
    return _expected(endpoint, constants.GADGET_MESSAGE_CONFIG, CONFIGURATION)


def read_header(endpoint: Endpoint) -> str:
    """Read the message of an ISMRMRD header."""
    return _expected(endpoint, constants.GADGET_MESSAGE_HEADER, HEADER)


def _expected(endpoint: Endpoint, number: int, name: str) -> str:
    came = message_id(endpoint)
    if came != number:
        raise ChainError(f"a message with id {came} came where {number} was expected")
    return read_document(endpoint, name)


def read_config_name(endpoint: Endpoint) -> str:
    """Read the name of a configuration."""
    name, _, _ = endpoint.read(CONFIG_NAME_BYTES).partition(b"\0")
    return name.decode("utf-8", "replace")


def read_acquisition(endpoint: Endpoint) -> ismrmrd.Acquisition:
    """Read a readout, its arrays made once their bytes are there."""
    head = ismrmrd.AcquisitionHeader.from_buffer_copy(
        endpoint.read(ctypes.sizeof(ismrmrd.AcquisitionHeader))
    )
    path = (head.number_of_samples, head.trajectory_dimensions)
    samples = (head.active_channels, head.number_of_samples)
    if 4 * math.prod(path) + 8 * math.prod(samples) > MAX_ITEM:
        raise ChainError(
            f"a readout of {samples[0]} channels, {samples[1]} samples and {path[1]} trajectory "
            f"dimensions was announced: more than {MAX_ITEM} bytes"
        )
    trajectory = _array(endpoint, path, np.dtype("<f4"))
    return ismrmrd.Acquisition(head, _array(endpoint, samples, np.dtype("<c8")), trajectory)


def read_waveform(endpoint: Endpoint) -> ismrmrd.Waveform:
    """Read a waveform."""
    head = endpoint.read(ctypes.sizeof(ismrmrd.WaveformHeader))
    header = ismrmrd.WaveformHeader.from_buffer_copy(head)
    shape = (header.channels, header.number_of_samples)
    if 4 * math.prod(shape) > MAX_ITEM:
        raise ChainError(f"a waveform of {shape[0]} x {shape[1]} was announced: too large")
    return ismrmrd.Waveform(head, _array(endpoint, shape, np.dtype("<u4")))


def read_image(endpoint: Endpoint) -> ismrmrd.Image:
    """Read an image, once its sizes are seen to be within bounds."""
    head = endpoint.read(ctypes.sizeof(ismrmrd.ImageHeader))
    header = ismrmrd.ImageHeader.from_buffer_copy(head)
    (attribute_bytes,) = constants.uint64.unpack(endpoint.read(constants.uint64.size))
    x, y, z = header.matrix_size
    shape = (header.channels, z, y, x)
    dtype = PIXELS.get(header.data_type)
    if dtype is None:
        raise ChainError(f"an image of data type {header.data_type} came: known are {[*PIXELS]}")
    if attribute_bytes > MAX_TEXT or math.prod(shape) * dtype.itemsize > MAX_IMAGE:
        raise ChainError(
            f"an image of {x} x {y} x {z}, {header.channels} channels and {attribute_bytes} "
            "attribute bytes was announced: too large"
        )
    attributes = decoded(bytes(endpoint.read(attribute_bytes)), ATTRIBUTES)
    if attributes and parse(attributes, ATTRIBUTES).tag != "ismrmrdMeta":
        raise ChainError(f"{ATTRIBUTES} are not an <ismrmrdMeta>")
    pixels = _array(endpoint, shape, dtype)
    try:
        return ismrmrd.Image(head, attributes, data=pixels)
    except AssertionError as error:
        raise ChainError("an attribute of an image has no name") from error


def _array(endpoint: Endpoint, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.frombuffer(endpoint.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


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
        told = read_text(endpoint, constants.uint64)
        raise ChainError("".join(c if c.isprintable() else " " for c in told))
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


def write_text(endpoint: Endpoint, text: str) -> None:
    """Send a text for the log of the other side."""
    _write_text(endpoint, constants.GADGET_MESSAGE_TEXT, text)


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
