"""Server in a thread, and scans for its tests."""

import os
import socket
import struct
import threading
import time

from peer import Peer
from synthetic import acquisitions, header, letter

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.service.client import run_remote
from gadgets.service.server import Server
from gadgets.service.shared import Shared

SHAPE = (48, 40)
STALL = 0.5
QUICK = Chain.load("score_recon.xml").with_properties({"sampler": "none"})


def scan(*slices):
    return [r for n in slices for r in acquisitions(letter(*SHAPE), noise=0.002, slice=n)]


def text(number, xml):
    return struct.pack("<HI", number, len(xml)) + xml.encode()


def serve_unheard(port, folder):
    """Serve with a closed standard error; the target of a new process, which imports it by name."""
    from gadgets.commands import main

    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(source)
    main(["serve", "--port", str(port), "--keep-in", str(folder)])


class Served:
    """Server in a thread, and its clients."""

    def __init__(self, shared=None, **options):
        self.server = Server(port=0, stall=STALL, **options)
        self.port = self.server.port
        self.thread = threading.Thread(
            target=self.server.run, args=(shared or Shared({}),), daemon=True
        )
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def connect(self, host="127.0.0.1"):
        return Peer(socket.create_connection((host, self.port), 10))

    def wait(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def run(self, chain=QUICK, readouts=None, host="127.0.0.1"):
        items = scan(0) if readouts is None else readouts
        return list(run_remote(f"{host}:{self.port}", chain, header(*SHAPE), items))
