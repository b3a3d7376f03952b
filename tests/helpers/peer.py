"""Gadgetron's side of the connection of a node, in raw bytes, without code of the package."""

import ctypes
import os
import socket
import struct
import subprocess
import sys

import ismrmrd
import numpy as np

FILENAME, CONFIG, HEADER, CLOSE, TEXT, QUERY, RESPONSE, ERROR = range(1, 9)
ACQUISITION, IMAGE, RECON_DATA, WAVEFORM = 1008, 1022, 1023, 1026


def configuration(**properties):
    inner = "".join(f'<property name="{k}" value="{v}"/>' for k, v in properties.items())
    return f"<configuration>{inner}</configuration>"


class Peer:
    """Peer of a node or server, message by message."""

    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def start(self, xml, **properties):
        self.send_text(CONFIG, configuration(**properties))
        self.send_text(HEADER, xml)

    def send_text(self, number, text):
        self.send(number, struct.pack("<I", len(text)) + text.encode())

    def send(self, number, payload=b""):
        self.socket.sendall(struct.pack("<H", number) + payload)

    def send_acquisitions(self, acquisitions):
        for acquisition in acquisitions:
            self.send(ACQUISITION, acquisition.to_bytes())

    def read(self, count):
        parts = b""
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            assert part, "the connection was closed without CLOSE"
            parts += part
        return parts

    def hears_nothing(self, seconds=0.5):
        self.socket.settimeout(seconds)
        try:
            early = self.socket.recv(1000)
        except TimeoutError:
            self.socket.settimeout(120)
        else:
            raise AssertionError(f"{early!r} received during the input")

    def unpack(self, form):
        return struct.unpack(form, self.read(struct.calcsize(form)))

    def receive(self):
        """Receive (id, item) until CLOSE and the end of the stream."""
        received = []
        while (number := self.unpack("<H")[0]) != CLOSE:
            if number == IMAGE:
                head = self.read(198)
                (length,) = self.unpack("<Q")
                attributes = self.read(length)
                header = ismrmrd.ImageHeader.from_buffer_copy(head)
                assert header.data_type == ismrmrd.DATATYPE_FLOAT
                x, y, z = header.matrix_size
                pixels = np.frombuffer(self.read(4 * x * y * z * header.channels), np.float32)
                meta = ismrmrd.Meta.deserialize(attributes.decode("ascii"))
                received.append((number, (header, pixels.reshape(z, y, x), meta)))
            elif number in (TEXT, ERROR):
                (length,) = self.unpack("<I" if number == TEXT else "<Q")
                received.append((number, self.read(length).decode()))
            elif number == WAVEFORM:
                received.append((number, ismrmrd.Waveform.deserialize_from(self.read)))
            else:
                raise AssertionError(f"message id {number}")
        assert self.socket.recv(1) == b"", "data after CLOSE"
        return received

    def images(self):
        received = self.receive()
        assert {number for number, _ in received} <= {IMAGE}, received
        return [item for _, item in received]


class Server(Peer):
    """Peer that spawns the process of the node as Gadgetron does."""

    def __init__(self, target, module="gadgets.score_recon"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gadgetron", str(port), module, target],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            listener.settimeout(60)
            super().__init__(listener.accept()[0])

    def __exit__(self, *_):
        super().__exit__()
        self.process.kill()
        self.process.communicate()


def shows_that_threads_sleep(words):
    """Check the output of a process with OMP_DISPLAY_ENV, if its OpenMP supports it."""
    if "OPENMP DISPLAY ENVIRONMENT" in words:
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in words


def recon_buffer(data, headers, limits):
    """Serialize a buffer: data [E0, E1, E2, CHA, N, S, LOC], headers [E1, E2, N, S, LOC]."""
    parts = [struct.pack("<Q", data.ndim), np.array(data.shape, "<u8").tobytes()]
    parts.append(data.astype("<c8").tobytes(order="F"))
    parts.append(b"\0\0")  # neither trajectory nor density
    parts += [struct.pack("<Q", headers.ndim), np.array(headers.shape, "<u8").tobytes()]
    parts += [bytes(head) for head in headers.ravel(order="F")]
    sampling = struct.pack("<6f", 1, 1, 1, 1, 1, 1) + struct.pack("<6H", 1, 1, 1, 1, 1, 1)
    sampling += b"".join(struct.pack("<3H", *limit) for limit in limits)
    assert len(sampling) == 54
    # two bytes of padding, as the structure is aligned to floats
    return b"".join([*parts, sampling, b"\0\0"])


def empty_buffer():
    """Serialize an empty buffer: arrays without axes."""
    return struct.pack("<Q", 0) + b"\0\0" + struct.pack("<Q", 0) + bytes(56)


def buffer_of(lines, ny, center):
    """Serialize a buffer as of BucketToBufferGadget: the encoded matrix, DC at ny // 2."""
    channels, nx = lines[0].data.shape
    data = np.zeros((nx, ny, 1, channels, 1, 1, 1), np.complex64)
    headers = np.empty((ny, 1, 1, 1, 1), object)
    for i in np.ndindex(headers.shape):
        headers[i] = ismrmrd.AcquisitionHeader()
    assert ctypes.sizeof(headers[0, 0, 0, 0, 0]) == 340
    for line in lines:
        row = line.idx.kspace_encode_step_1 - center + ny // 2
        data[:, row, 0, :, 0, 0, 0] = line.data.T
        headers[row, 0, 0, 0, 0] = line.getHead()
    return recon_buffer(data, headers, [(0, nx // 2, nx - 1), (0, ny // 2, ny - 1), (0, 0, 0)])


def recon_data(data, reference=None):
    """Return the payload of a ReconData message with one entry."""
    present = b"\0" if reference is None else b"\1" + reference
    return struct.pack("<Q", 1) + data + present
