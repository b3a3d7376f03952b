"""Fuzzing of the readers of streams.

    python tests/helpers/fuzz.py MINUTES

mutates valid streams and prints, in the format of corpus.txt, the shortest bytes for each way in
which reading ends. Exceptions other than InputError and StreamEnded are failures, as is memory out
of proportion to the bytes read.
"""

import logging
import random
import re
import socket
import struct
import sys
import time
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import ismrmrd
import numpy as np
import peer
from gadgetron.external.connection import Connection
from synthetic import acquisitions, header, letter

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.connection import receive
from gadgets.protocol.gadgetron.wire import Endpoint, StreamEnded
from gadgets.service.session import Session
from gadgets.service.shared import Shared
from gadgets.stages.buffers import read_recon_data
from scoremri_core.errors import InputError

AHEAD = 1 << 22  # bytes that may be allocated in addition to a multiple of those read
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


class Memory:
    """Socket whose peer has sent `data` and disconnected."""

    def __init__(self, data):
        self.data = data
        self.position = 0

    def recv(self, count, flags=0):
        part = self.data[self.position : self.position + count]
        self.position += len(part) * (flags != socket.MSG_PEEK)
        return part

    def settimeout(self, seconds):
        pass

    def sendall(self, data):
        pass

    def shutdown(self, how):
        pass

    def close(self):
        pass


def message(number, payload=b""):
    return struct.pack("<H", number) + payload


def text(number, words):
    return message(number, struct.pack("<I", len(words)) + words.encode())


def small_items():
    readout = acquisitions(letter(6, 4), coils=2)[0]
    readout = ismrmrd.Acquisition.from_array(readout.data, np.zeros((4, 2), np.float32))
    waveform = ismrmrd.Waveform.from_array(np.arange(6, dtype=np.uint32).reshape(2, 3))
    image = ismrmrd.Image.from_array(np.ones((2, 3), np.float32))
    image.meta = ismrmrd.Meta({"a": "b"})
    return readout, waveform, image


def stream():
    """Return one message of each kind that a node reads."""
    readout, waveform, image = small_items()
    buffers = peer.recon_data(peer.buffer_of(acquisitions(letter(4, 4), coils=1), 4, 2))
    return [
        message(peer.ACQUISITION, readout.to_bytes()),
        message(peer.WAVEFORM, waveform.to_bytes()),
        message(peer.IMAGE, image.to_bytes()),
        text(peer.TEXT, "hello"),
        message(peer.RECON_DATA, buffers),
        message(peer.ERROR, struct.pack("<Q", 2) + b"no"),
        message(peer.CLOSE),
    ]


def scan():
    """Return the messages of a scan as from a client."""
    chain = Chain.load("score_recon.xml")
    lines = acquisitions(letter(8, 8), coils=2, noise=0.01)
    return [
        text(peer.CONFIG, chain.with_properties({"sampler": "none"}).xml),
        text(peer.HEADER, header(8, 8)),
        *(message(peer.ACQUISITION, line.to_bytes()) for line in lines),
        message(peer.CLOSE),
    ]


def mutated(messages, chance):
    """Drop, repeat and swap messages; overwrite numbers; remove or insert bytes."""
    messages = list(messages)
    for _ in range(chance.choice((0, 0, 1, 3))):
        i, j = chance.randrange(len(messages)), chance.randrange(len(messages))
        what = chance.randrange(3)
        if what == 0:
            messages[i], messages[j] = messages[j], messages[i]
        elif what == 1:
            messages.insert(i, messages[j])
        elif len(messages) > 1:
            del messages[i]
    data = bytearray(b"".join(messages))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        at = chance.randrange(len(data))
        what = chance.randrange(5)
        if what < 3:
            size, form = chance.choice(((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")))
            number = chance.choice(NUMBERS) if what else chance.getrandbits(64)
            data[at : at + size] = struct.pack(form, number % (1 << 8 * size))
        elif what == 3:
            del data[at : at + chance.choice((1, 2, 8, 300))]
        else:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 8, 300)))
        if not data:
            return b""
    return bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data) + 1)))])


def read_as_client(memory):
    """Read messages as a client or the host does."""
    endpoint = Endpoint(memory)
    while wire.read_message(endpoint) is not None:
        pass


def read_as_node(memory):
    """Read messages as a node does."""
    readers = {**Connection._default_readers(), **wire.READERS, peer.RECON_DATA: read_recon_data}
    for _ in receive(SimpleNamespace(socket=Endpoint(memory), readers=readers)):
        pass


def serve(memory):
    """Read a connection as a server does."""
    endpoint = Endpoint(memory)
    Session(endpoint, "fuzz", Shared({})).run()


def ending(read, data):
    """Read and return how it ends, with numbers as N, and the number of bytes read.

    Raises other exceptions than InputError and StreamEnded, and AssertionError for memory out of
    proportion to the bytes read.
    """
    tracemalloc.start()
    try:
        memory = Memory(data)
        try:
            read(memory)
            end = "closed"
        except (InputError, StreamEnded) as error:
            end = f"{type(error).__name__}: {error}"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < AHEAD + 8 * memory.position, f"{peak} bytes for {memory.position} read"
    return re.sub(r"[^ -~]+|\d+", "N", end)[:100], memory.position


class Unexpected(logging.Handler):
    """Handler that keeps unexpected exceptions of scans."""

    def __init__(self):
        super().__init__()
        self.kept = set()

    def emit(self, record):
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, (InputError, OSError)):
            self.kept.add(repr(error))


def main(minutes, seed=0):
    logging.getLogger("gadgets").addHandler(unexpected := Unexpected())
    chance = random.Random(seed)
    shortest, counts = {}, Counter()
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        counts["streams"] += 1
        data = mutated(stream(), chance)
        for read in (read_as_client, read_as_node):
            try:
                end, taken = ending(read, data)
            except Exception as error:  # noqa: BLE001  (the subject of the search)
                end, taken = f"FAILURE {type(error).__name__}: {error}", len(data)
                counts["FAILURES"] += 1
            key = f"{read.__name__}\t{end}"
            if key not in shortest or taken < len(shortest[key]):
                shortest[key] = data[:taken]
        if counts["streams"] % 20 == 0:
            serve(Memory(mutated(scan(), chance)))
            counts["scans"] += 1
    for key, data in sorted(shortest.items()):
        sys.stdout.write(f"{key}\t{data.hex()}\n")
    sys.stderr.write(f"{dict(counts)}\n{unexpected.kept or 'no unexpected exception'}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]))
