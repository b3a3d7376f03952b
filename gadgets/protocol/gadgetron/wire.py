"""Gadgetron's wire protocol, for nodes, the embedded host and the client."""

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

# Memory grows with the data received, by one chunk at a time, not with announced lengths.
CHUNK = 1 << 20
MAX_TEXT = 1 << 24  # bytes of a configuration, a header, a text or the attributes of an image
MAX_ITEM = 1 << 30  # bytes of one readout or waveform
MAX_IMAGE = 1 << 32  # bytes of the pixels of one image, or of any other part of a message

QUIET_SECONDS = 3.0  # pause after which a peer has stopped sending
DRAIN_SECONDS = 60.0  # limit for discarding input

CONFIG_NAME_BYTES = 1024
# documents, in messages
CONFIGURATION, HEADER = "the configuration", "the ISMRMRD header"
ATTRIBUTES = "the attributes of an image"
FAILED = "the scan failed: "  # prefix of a TEXT message; message 8 aborts most clients

# ismrmrd maps 32-bit integers to 64 bits
PIXELS = {k: v for k, v in dtype_mapping.items() if k != ismrmrd.DATATYPE_INT}


class ChainError(InputError):
    """A chain cannot run or failed; with the message of the failing node."""


class StreamEnded(ConnectionError):  # noqa: N818
    """The peer disconnected without CLOSE."""


class Stalled(ChainError):  # noqa: N818
    """The peer stopped within a message."""


class Endpoint:
    """One end of a stream, with the methods of gadgetron-python's socket wrapper.

    That wrapper spins if the peer disconnects, allocates any announced length, and loses the last
    data sent if unread data remain on close.

    Parameters
    ----------
    connected : socket.socket
        Connected socket, owned by the endpoint.
    stall : float, optional
        Timeout in seconds within a message and for unread output. Default: none.
    """

    def __init__(self, connected: socket.socket, stall: float | None = None) -> None:
        self.socket = connected
        self.stall = stall
        self.socket.settimeout(stall)
        self.patient = True  # no timeout between messages
        self.received = 0  # bytes
        self.finished = False  # the peer's CLOSE was read
        self.reading = threading.Lock()  # held while a message is read
        self.in_step = True  # the next byte begins a message
        self._closed = False

    def read(self, count: int, patient: bool = False) -> bytearray:
        """Read exactly `count` bytes, without a timeout before the first if `patient`.

        Raises
        ------
        StreamEnded
            The stream ends.
        Stalled
            The timeout has passed.
        ChainError
            `count` is too large.
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
                raise Stalled(f"incomplete message: no data for {self.stall:g} s") from error
            except OSError as error:
                raise StreamEnded(f"the connection was lost ({error})") from error
            if not part:
                raise StreamEnded("the peer closed the connection without a CLOSE message")
            parts += part
            self.received += len(part)
        return parts

    def comes(self) -> bool:
        """Whether the peer sends data or disconnects before the timeout."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            pass  # reported on reading
        return True

    def drop(self) -> None:
        """Discard input until CLOSE, a pause, or the end of the stream."""
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
            The peer has disconnected, or does not read within the timeout.
        """
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        for start in range(0, len(view), CHUNK):  # the timeout applies to each call
            try:
                self.socket.sendall(view[start : start + CHUNK])
            except TimeoutError as error:
                raise StreamEnded(f"what was sent stayed unread for {self.stall:g} s") from error

    def close(self) -> None:
        """Send CLOSE, once, and close the socket.

        Input is discarded for a while before: closing with unread data would reset the connection
        and lose the last output.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.write(constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_CLOSE))
            self.socket.shutdown(socket.SHUT_WR)
            self.drop()
        except OSError:
            pass  # the peer has disconnected
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the socket without CLOSE; waiting reads and writes end."""
        self._closed = True
        with contextlib.suppress(OSError):  # disconnected
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def message_id(endpoint: Endpoint, patient: bool = True) -> int:
    """Read the id at the start of a message."""
    return int(constants.GadgetMessageIdentifier.unpack(endpoint.read(2, patient))[0])


def read_text(endpoint: Endpoint, length: struct.Struct = constants.uint32) -> str:
    """Read a length and UTF-8 text."""
    return _read_bytes(endpoint, length).rstrip(b"\0").decode("utf-8", "replace")


def read_document(endpoint: Endpoint, name: str) -> str:
    """Read a length and an XML document in its declared encoding."""
    return decoded(bytes(_read_bytes(endpoint, constants.uint32)), name)


def _read_bytes(endpoint: Endpoint, length: struct.Struct) -> bytearray:
    (size,) = length.unpack(endpoint.read(length.size))
    if size > MAX_TEXT:
        raise ChainError(f"a text message of {size} bytes was announced: at most {MAX_TEXT}")
    return endpoint.read(size)


def read_config(endpoint: Endpoint) -> str:
    """Read a configuration message."""
    return _expected(endpoint, constants.GADGET_MESSAGE_CONFIG, CONFIGURATION)


def read_header(endpoint: Endpoint) -> str:
    """Read an ISMRMRD header message."""
    return _expected(endpoint, constants.GADGET_MESSAGE_HEADER, HEADER)


def _expected(endpoint: Endpoint, number: int, name: str) -> str:
    received = message_id(endpoint)
    if received != number:
        raise ChainError(f"message id {received}: expected {number}")
    return read_document(endpoint, name)


def read_config_name(endpoint: Endpoint) -> str:
    """Read the name of a configuration."""
    name, _, _ = endpoint.read(CONFIG_NAME_BYTES).partition(b"\0")
    return name.decode("utf-8", "replace")


def read_acquisition(endpoint: Endpoint) -> ismrmrd.Acquisition:
    """Read a readout."""
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
    """Read an image of limited size."""
    head = endpoint.read(ctypes.sizeof(ismrmrd.ImageHeader))
    header = ismrmrd.ImageHeader.from_buffer_copy(head)
    (attribute_bytes,) = constants.uint64.unpack(endpoint.read(constants.uint64.size))
    x, y, z = header.matrix_size
    shape = (header.channels, z, y, x)
    dtype = PIXELS.get(header.data_type)
    if dtype is None:
        raise ChainError(f"unknown image data type {header.data_type}: expected one of {[*PIXELS]}")
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
    ismrmrd.Acquisition, ismrmrd.Waveform, ismrmrd.Image, str or None
        str for TEXT, None for CLOSE.

    Raises
    ------
    ChainError
        ERROR message, with its text, or unknown id.
    StreamEnded
        The stream ends without CLOSE.
    """
    number = message_id(endpoint)
    if number == constants.GADGET_MESSAGE_CLOSE:
        endpoint.finished = True
        return None
    if number == constants.GADGET_MESSAGE_TEXT:
        return read_text(endpoint)
    if number == constants.GADGET_MESSAGE_ERROR:
        message = read_text(endpoint, constants.uint64)
        raise ChainError("".join(c if c.isprintable() else " " for c in message))
    if number not in READERS:
        raise ChainError(f"unknown message id {number}: expected one of {sorted(READERS)}")
    return READERS[number](endpoint)


def write_config(endpoint: Endpoint, xml: str) -> None:
    """Send a configuration."""
    _write_text(endpoint, constants.GADGET_MESSAGE_CONFIG, xml)


def write_config_name(endpoint: Endpoint, name: str) -> None:
    """Send the name of one of the server's configurations."""
    identifier = constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_FILENAME)
    encoded = name.encode()
    if len(encoded) >= CONFIG_NAME_BYTES:
        raise ChainError(f"the name of a chain has {len(encoded)} bytes: at most 1023")
    endpoint.write(identifier + encoded.ljust(CONFIG_NAME_BYTES, b"\0"))


def write_header(endpoint: Endpoint, xml: str) -> None:
    """Send an ISMRMRD header."""
    _write_text(endpoint, constants.GADGET_MESSAGE_HEADER, xml)


def write_text(endpoint: Endpoint, text: str) -> None:
    """Send a text for the log of the peer."""
    _write_text(endpoint, constants.GADGET_MESSAGE_TEXT, text)


def write_error(endpoint: Endpoint, message: str) -> None:
    """Send an ERROR message."""
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
    """Send CLOSE; reading goes on."""
    endpoint.write(constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_CLOSE))


def _write_text(endpoint: Endpoint, number: int, text: str) -> None:
    encoded = text.encode()
    endpoint.write(struct.pack("<HI", number, len(encoded)) + encoded)
