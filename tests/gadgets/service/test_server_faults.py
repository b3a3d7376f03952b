"""What goes wrong at the other end of a connection, and what it costs."""

import os
import struct
import threading
import time
import tracemalloc

import ismrmrd
import numpy as np
import peer
import pytest
from served import QUICK, SHAPE, scan, text
from synthetic import header

BOMB = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;&x;">]>'
ENTITY = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
BEGIN = text(2, QUICK.xml) + text(3, header(*SHAPE))


def readout(channels, samples, dimensions=0):
    head = ismrmrd.AcquisitionHeader()
    head.active_channels, head.number_of_samples = channels, samples
    head.trajectory_dimensions = dimensions
    return struct.pack("<H", 1008) + bytes(head)


def image(size, attributes=0):
    head = ismrmrd.ImageHeader()
    head.data_type, head.channels = ismrmrd.DATATYPE_FLOAT, size
    head.matrix_size[:] = (size,) * 3
    return struct.pack("<H", 1022) + bytes(head) + struct.pack("<Q", attributes)


FAULTS = {
    "unknown id": (BEGIN + struct.pack("<H", 4321), "unknown message id 4321"),
    "unknown id at once": (struct.pack("<H", 999), "message id 999: expected a configuration"),
    "data before a header": (
        text(2, QUICK.xml) + readout(1, 1),
        "expected a configuration and a header first",
    ),
    "no configuration": (text(3, header(*SHAPE)), "header before configuration"),
    "4 GB configuration": (struct.pack("<HI", 2, 2**32 - 1), "4294967295 bytes was announced"),
    "4 GB header": (text(2, QUICK.xml) + struct.pack("<HI", 3, 2**32 - 1), "was announced"),
    "negative length": (BEGIN + struct.pack("<Hi", 5, -1), "4294967295 bytes was announced"),
    "vast readout": (BEGIN + readout(65535, 65535), "65535 channels, 65535 samples"),
    "vast trajectory": (BEGIN + readout(1, 65535, 65535), "65535 trajectory dimensions"),
    "vast image": (BEGIN + image(65535), "an image of 65535 x 65535 x 65535"),
    "vast attributes": (BEGIN + image(1, 2**63), "too large"),
    "vast matrix": (
        text(2, QUICK.xml) + text(3, header(65535, 65535)),
        "encodedSpace 65535 x 65535 x 1",
    ),
    "negative matrix": (text(2, QUICK.xml) + text(3, header(-1, 40)), "header"),
    "half a configuration": (text(2, QUICK.xml)[:-9], "incomplete message: no data for"),
    "half a header": (
        text(2, QUICK.xml) + text(3, header(*SHAPE))[:-9],
        "incomplete message: no data for",
    ),
    "half an id": (BEGIN + b"\x08", "incomplete message: no data for"),
    "half a readout": (
        BEGIN + readout(1000, 65535) + bytes(999),
        "incomplete message: no data for",
    ),
    "bomb for a configuration": (text(2, BOMB + QUICK.xml[22:]) + text(3, "<a/>"), "<!DOCTYPE>"),
    "entity in a header": (
        text(2, QUICK.xml) + text(3, ENTITY + header(*SHAPE)[22:]),
        "<!DOCTYPE>",
    ),
    "bomb in attributes": (
        BEGIN + image(1, len(BOMB) + 4) + BOMB.encode() + b"<a/>",
        "<!DOCTYPE>",
    ),
    "garbage for a header": (text(2, QUICK.xml) + text(3, "<ismrmrd"), "not well-formed"),
    "another document": (text(2, QUICK.xml) + text(3, "<a/>"), "the ISMRMRD header lacks"),
    "a path for a name": (
        struct.pack("<H1024s", 1, b"../outside.xml") + text(3, header(*SHAPE)),
        "unknown chain '../outside.xml'",
    ),
    "code of the client's choice": (
        text(2, QUICK.xml.replace("gadgets.score_recon", "os")) + text(3, header(*SHAPE)),
        "the target os.reconstruct_acquisitions is in none of this server's chains",
    ),
    "an unknown property": (
        text(2, QUICK.xml.replace('"maps"', '"mops"')) + text(3, header(*SHAPE)),
        "unknown property 'mops'",
    ),
    "an exception": (
        struct.pack("<H1024s", 1, b"fail")
        + text(3, header(*SHAPE))
        + struct.pack("<H", 1008)
        + scan(0)[0].to_bytes(),
        "RuntimeError: out of luck",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_sentence_without_large_allocations(served, fault):
    sent, expected = FAULTS[fault]
    tracemalloc.start()
    try:
        with served.connect() as client:
            client.socket.settimeout(20)
            client.socket.sendall(sent)
            if fault == "an exception":
                client.send(peer.CLOSE)
            ((number, words),) = client.receive()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert number == peer.TEXT
    assert expected in words
    assert "\n" not in words
    assert peak < 2**23 + 4 * len(sent)


@pytest.mark.parametrize("sent", [b"", BEGIN[:1], BEGIN[:3000], BEGIN, BEGIN + readout(4, 40)])
def test_the_server_survives_a_disconnected_client(served, sent, caplog):
    with served.connect() as client:
        client.socket.sendall(sent)
    # that no connection is open may also mean that this one is not accepted yet
    if sent:
        served.wait(lambda: "the peer disconnected" in caplog.text)
    assert len(served.run()) == 1
    served.wait(lambda: not served.server.open_connections)
    assert ("the peer disconnected" in caplog.text) == bool(sent)


def test_connections_leave_no_resources(served):
    def count():
        return np.array([threading.active_count(), len(os.listdir("/proc/self/fd"))])

    served.run()
    served.wait(lambda: not served.server.open_connections)
    time.sleep(0.1)
    before = count()
    for _ in range(3):
        served.run()
        with served.connect() as client:  # more than is read ahead, and none of it wanted
            client.send_text(peer.CONFIG, QUICK.xml)
            client.send_text(peer.HEADER, header(*SHAPE))
            client.send_acquisitions(scan(0) * 20)
        with served.connect() as client:
            client.send(peer.FILENAME, b"fail".ljust(1024, b"\0"))
            client.send_text(peer.HEADER, header(*SHAPE))
            client.send_acquisitions(scan(0) * 3)
            client.send(peer.CLOSE)
            client.receive()
    served.wait(lambda: not served.server.open_connections and (count() <= before).all())
