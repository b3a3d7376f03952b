import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from types import SimpleNamespace

import ismrmrd
import numpy as np
import peer
import pytest
import torch
from peer import Peer
from synthetic import acquisitions, header, letter

from gadgets.protocol import wire
from gadgets.protocol.chain import Chain
from gadgets.protocol.connection import receive, tell
from gadgets.service.client import run_remote
from gadgets.service.server import Server
from gadgets.service.shared import Shared
from gadgets.stream.turns import Turns
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan

SHAPE = (48, 40)
STALL = 0.5
QUICK = Chain.load("score_recon.xml").with_properties({"sampler": "none"})


def scan(*slices):
    return [r for n in slices for r in acquisitions(letter(*SHAPE), noise=0.002, slice=n)]


class Served:
    """A server in a thread, and clients of it."""

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Chains that only this server has."""
    folder = tmp_path_factory.mktemp("chains")
    (folder / "quick.xml").write_text(QUICK.xml)
    fail = QUICK.xml.replace("gadgets.score_recon", "targets")
    (folder / "fail.xml").write_text(fail.replace("reconstruct_acquisitions", "fail"))
    (folder.parent / "outside.xml").write_text(QUICK.xml)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with Served(chains=str(folder)) as running:
        yield running


def test_a_client_by_name_as_gadgetrons_own(served):
    waveform = ismrmrd.Waveform.from_array(np.zeros((2, 6), np.uint32))
    with served.connect() as client:
        client.send(peer.FILENAME, b"quick.xml".ljust(1024, b"\0"))
        client.send_text(peer.HEADER, header(*SHAPE) + "\0")
        client.send_text(peer.TEXT, '{"parameters": {}}')  # as python-ismrmrd-server's client does
        # A waveform that came back would abort Gadgetron's client.
        client.send(peer.WAVEFORM, waveform.to_bytes())
        client.send_acquisitions(scan(0, 1))
        client.send(peer.CLOSE)
        images = client.images()
    assert [head.slice for head, _, _ in images] == [0, 1]
    for _, pixels, meta in images:
        np.testing.assert_allclose(pixels[0], letter(*SHAPE), atol=0.12)
        assert "fallback" not in meta


def test_writers_of_the_chain_say_what_comes_back(served):
    xml = QUICK.xml.replace(">ImageWriter<", ">WaveformWriter<")
    waveform = ismrmrd.Waveform.from_array(np.arange(12, dtype=np.uint32).reshape(2, 6))
    assert served.run(Chain("waveforms", xml), [waveform, *scan(0)]) == [waveform]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_client_by_xml_over_both_protocols(served, host):
    if host == "[::1]" and not any(host in address for address in served.server.addresses):
        pytest.skip("no IPv6")
    (image,) = served.run(host=host)
    assert image.meta["sampler"] == "none"


def test_images_of_others_pass_through(served):
    image = ismrmrd.Image.from_array(np.random.default_rng(0).random((3, 4), np.float32))
    image.meta = ismrmrd.Meta({"ImageComment": "theirs"})
    back, _ = served.run(readouts=[image, *scan(0)])
    assert back == image
    assert back.meta == image.meta


def test_a_client_that_only_asks_gets_close_alone(served):
    with served.connect() as client:  # as Gadgetron's does for a stored noise scan
        client.send(peer.FILENAME, b"default_measurement_dependencies.xml".ljust(1024, b"\0"))
        client.send(peer.CLOSE)
        assert client.receive() == []


def test_a_query_is_answered(served):
    with served.connect() as client:
        client.send(peer.QUERY, struct.pack("<QQQ", 0, 7, 15) + b"gadgetron::info")
        assert client.unpack("<HQQ") == (peer.RESPONSE, 7, 8)
        assert client.read(8) == b"scoremri"


def gadgetron_node(served, xml=None, **properties):
    node = served.connect()
    node.start(header(*SHAPE) if xml is None else xml, **properties)
    return node


def test_a_node_of_gadgetron_with_acquisitions(served):
    with gadgetron_node(served, sampler="none", series=4) as node:
        node.send_acquisitions(scan(0, 1))
        node.send(peer.CLOSE)
        images = node.images()
    assert [(head.slice, head.image_series_index) for head, _, _ in images] == [(0, 4), (1, 4)]


def test_a_node_of_gadgetron_with_recon_data(served):
    lines = acquisitions(letter(*SHAPE), noise=0.002, slice=3)
    with gadgetron_node(served, header(*SHAPE, oversampling=2), sampler="none") as node:
        node.send(peer.RECON_DATA, peer.recon_data(peer.buffer_of(lines, 48, 24)))
        node.send(peer.CLOSE)
        ((head, pixels, _),) = node.images()
    assert head.slice == 3
    assert np.corrcoef(pixels.ravel(), letter(*SHAPE).ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("properties", "told"),
    [({"sampel": 1}, "unknown property"), ({"prior": "mine"}, "prior 'mine' was not loaded")],
)
def test_a_node_is_told_by_message_8(served, properties, told):
    with gadgetron_node(served, **properties) as node:
        node.send_acquisitions(scan(0))
        node.hears_nothing()  # an error while input flows often ends Gadgetron's process
        node.send_acquisitions(scan(1))
        node.send(peer.CLOSE)
        ((number, text),) = node.receive()
    assert number == peer.ERROR
    assert told in text
    assert len(served.run()) == 1


@pytest.mark.parametrize(
    ("config", "xml", "told"),
    [
        ("<configuration/>", "<ismrmrd", "not well-formed"),
        ("<configuration/>", header(65535, 65535), "encodedSpace 65535 x 65535"),
        ("<configuration/>", header(*SHAPE, trajectory="spiral"), "trajectory spiral"),
    ],
)
def test_a_node_is_never_told_by_text(served, config, xml, told):
    with served.connect() as node:  # to Gadgetron an illegal message, that hides what was wrong
        node.send_text(peer.CONFIG, config)
        node.send_text(peer.HEADER, xml)
        node.send_acquisitions(scan(0))
        node.hears_nothing()
        node.send(peer.CLOSE)
        ((number, words),) = node.receive()
    assert number == peer.ERROR
    assert told in words


def test_a_node_that_lost_its_place_is_told_once_its_peer_pauses(served, monkeypatch):
    monkeypatch.setattr(wire, "QUIET_SECONDS", 1.0)
    for sent in (text(3, header(*SHAPE)) + struct.pack("<H", 1234), struct.pack("<H", 1234)):
        with served.connect() as node:
            node.send_text(peer.CONFIG, peer.configuration(sampler="none"))
            node.socket.sendall(sent)
            for _ in range(4):
                node.send_acquisitions(scan(0)[:3])
                node.hears_nothing(0.2)
            ((number, words),) = node.receive()
        assert number == peer.ERROR
        assert "id 1234" in words


def test_what_a_failed_node_was_sent_is_read_by_one_thread_at_a_time():
    for seed in range(20):
        chance = np.random.default_rng(seed)
        ours, theirs = map(wire.Endpoint, socket.socketpair())
        threading.Thread(target=wire.write_item, args=(ours, scan(0)[0]), daemon=True).start()
        connection = SimpleNamespace(socket=theirs, readers=wire.READERS)
        ahead = threading.Thread(target=list, args=(itertools.islice(receive(connection), 7),))
        ahead.start()
        telling = threading.Thread(
            target=tell, args=(theirs, wire.READERS, InputError("why")), daemon=True
        )
        telling.start()
        for readout in scan(0)[1:20]:
            time.sleep(chance.choice([0, 1e-4]))
            wire.write_item(ours, readout)
        wire.write_close(ours)
        with pytest.raises(wire.ChainError, match="why"):
            wire.read_message(ours)
        telling.join(10)
        ahead.join(10)
        ours.abandon()
        theirs.abandon()


def text(number, xml):
    return struct.pack("<HI", number, len(xml)) + xml.encode()


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
    "unknown id": (BEGIN + struct.pack("<H", 4321), "a message with id 4321 came"),
    "unknown id at once": (struct.pack("<H", 999), "id 999 came before a configuration"),
    "data before a header": (text(2, QUICK.xml) + readout(1, 1), "came before a configuration"),
    "no configuration": (text(3, header(*SHAPE)), "a header came before a configuration"),
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
    "half a configuration": (text(2, QUICK.xml)[:-9], "nothing came for"),
    "half a header": (text(2, QUICK.xml) + text(3, header(*SHAPE))[:-9], "nothing came for"),
    "half an id": (BEGIN + b"\x08", "nothing came for"),
    "half a readout": (BEGIN + readout(1000, 65535) + bytes(999), "nothing came for"),
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
def test_a_fault_is_told_in_one_sentence_and_costs_no_memory(served, fault):
    sent, told = FAULTS[fault]
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
    assert told in words
    assert "\n" not in words
    assert peak < 2**23 + 4 * len(sent)


@pytest.mark.parametrize("sent", [b"", BEGIN[:1], BEGIN[:3000], BEGIN, BEGIN + readout(4, 40)])
def test_a_client_that_vanishes_leaves_a_server_that_serves(served, sent, caplog):
    with served.connect() as client:
        client.socket.sendall(sent)
    # that no connection is open may also mean that this one is not accepted yet
    if sent:
        served.wait(lambda: "the peer went away" in caplog.text)
    assert len(served.run()) == 1
    served.wait(lambda: not served.server.open_connections)
    assert ("the peer went away" in caplog.text) == bool(sent)


def test_nothing_is_left_of_a_connection(served):
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


class CarefulPrior:
    """Knows when two scans use it at once."""

    name = "careful"

    def __init__(self):
        self.users = 0
        self.overlaps = 0

    def denoise(self, x, sigma):
        self.users += 1
        self.overlaps += self.users > 1
        time.sleep(0.02)
        self.users -= 1
        return x / (1 + sigma.reshape(-1, 1, 1).to(x.device) ** 2)


def test_scans_at_once_share_one_prior_in_turns():
    prior = CarefulPrior()
    chain = Chain.load("score_recon.xml").with_properties({"samples": "1", "steps": "3"})
    ended = []

    def client(name, count):
        images = running.run(chain, scan(*range(count)))
        assert [i.slice for i in images if i.image_series_index == 1] == list(range(count))
        ended.append(name)

    with Served(Shared({"default": prior}, "cpu", Turns())) as running:
        torch.zeros(1)
        threads = [threading.Thread(target=client, args=("long", 12))]
        threads[0].start()
        while not prior.users:
            time.sleep(0.001)
        threads += [threading.Thread(target=client, args=(f"short {n}", 1)) for n in range(2)]
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert prior.overlaps == 0
    assert len(ended) == 3
    assert ended[-1] == "long"


def test_open_scans_finish_when_the_server_stops():
    with Served() as running:
        client, idle = running.connect(), running.connect()
        readouts = scan(0)
        client.send_text(peer.CONFIG, QUICK.xml)
        client.send_text(peer.HEADER, header(*SHAPE))
        client.send_acquisitions(readouts[:20])
        running.wait(lambda: [s.started for s in running.server.open_connections] == [True, False])
        running.server.stop()
        running.wait(lambda: not running.server.listening)
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        client.send_acquisitions(readouts[20:])
        client.send(peer.CLOSE)
        assert len(client.images()) == 1
        client.socket.close()
        idle.socket.close()
        running.thread.join(20)
        assert not running.thread.is_alive()


def test_one_connection_too_many_is_refused_as_its_peer_can_be_told(monkeypatch):
    monkeypatch.setattr("gadgets.service.server.MAX_SESSIONS", 1)
    with Served() as running, running.connect() as first:
        first.send_text(peer.CONFIG, QUICK.xml)
        first.send_text(peer.HEADER, header(*SHAPE))
        running.wait(lambda: running.server.scans_open == 1)
        with pytest.raises(InputError, match="the server has too many connections"):
            running.run()
        running.wait(lambda: len(running.server.open_connections) == 1)
        with gadgetron_node(running, sampler="none") as node:
            node.send_acquisitions(scan(0))
            node.hears_nothing()
            running.connect().__exit__()  # more than can be told
            node.send(peer.CLOSE)
            assert node.receive() == [(peer.ERROR, "the server has too many connections")]
        running.wait(lambda: len(running.server.open_connections) == 1)
        first.send_acquisitions(scan(0))
        first.send(peer.CLOSE)
        assert len(first.images()) == 1


def test_every_scan_is_captured_where_the_server_says(tmp_path):
    elsewhere = QUICK.with_properties({"capture": str(tmp_path / "not here")})
    with Served(Shared({}, capture=str(tmp_path))) as running:
        assert len(running.run(elsewhere)) == 1
    (path,) = tmp_path.iterdir()
    with open_scan(path) as saved:
        assert list(saved) == scan(0)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16"])
def test_documents_are_read_in_the_encoding_that_they_declare(tmp_path, encoding):
    def document(number, xml):
        content = xml.replace('version="1.0"', f'version="1.0" encoding="{encoding}"', 1)
        content = content.encode(encoding)
        return struct.pack("<HI", number, len(content) + 1) + content + b"\0"

    named = (
        "<measurementInformation><patientPosition>HFS</patientPosition>"
        "<protocolName>Schädel</protocolName></measurementInformation><acquisitionSystem"
    )
    xml = header(*SHAPE).replace("<acquisitionSystem", named, 1)
    with Served(Shared({}, capture=str(tmp_path))) as running, running.connect() as client:
        client.socket.sendall(document(peer.CONFIG, '<?xml version="1.0"?>' + QUICK.xml))
        client.socket.sendall(document(peer.HEADER, xml))
        client.send_acquisitions(scan(0))
        client.send(peer.CLOSE)
        assert len(client.images()) == 1
    (path,) = tmp_path.iterdir()
    with open_scan(path) as saved:
        assert saved.header.measurementInformation.protocolName == "Schädel"


def test_a_full_disk_ends_the_capture_and_not_the_scan(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, os.strerror(28))

    with Served(Shared({}, capture=str(tmp_path))) as running:
        readouts = scan(0, 1, 2)
        calls = []
        real = os.posix_fallocate
        monkeypatch.setattr(
            os, "posix_fallocate", lambda *a: (full if calls else real)(*(calls.append(a) or a))
        )
        assert len(running.run(readouts=readouts)) == 3
    assert "not captured: [Errno 28]" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_told(served):
    with pytest.raises(InputError, match=f"port {served.port} of 127.0.0.1 is in use"):
        Server(["127.0.0.1"], served.port)
    with pytest.raises(InputError, match="cannot listen on nowhere"):
        Server(["nowhere.invalid"], 0)


def test_a_server_that_is_not_run_gives_its_port_back():
    server = Server(["127.0.0.1"], 0)
    port = server.port
    server.close()
    Server(["127.0.0.1"], port).close()


def test_the_command_refuses_a_prior_that_is_not_there():
    command = [sys.executable, "-Walways", "-m", "scoremri_core", "serve", "--port", "0"]
    done = subprocess.run([*command, "--prior", "absent"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "prior 'absent': expected one of default" in done.stderr
    assert "unclosed" not in done.stderr


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    command = [sys.executable, "-m", "scoremri_core", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if "Serving on 127.0.0.1:" in line:
                    port = int(line.split("127.0.0.1:")[1].split()[0])
                    break
            chain = QUICK.with_properties({"sampler": "posterior", "samples": "2", "steps": "2"})
            images = list(run_remote(f"127.0.0.1:{port}", chain, header(*SHAPE), scan(0)))
            assert [image.image_series_index for image in images] == [1, 2]
            busy = subprocess.run(
                [*command[:-1], str(port)], capture_output=True, text=True, check=False
            )
            assert busy.returncode == 2
            assert busy.stderr.strip().endswith("in use: choose another with --port")
            process.terminate()
            assert process.wait(30) == 0
            assert "Stopped: 1 connections served" in process.stderr.read()
        finally:
            with contextlib.suppress(OSError):
                process.kill()
