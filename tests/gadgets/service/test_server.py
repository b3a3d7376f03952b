"""Clients of the server, and how it begins and ends."""

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import ismrmrd
import numpy as np
import peer
import pytest
import torch
from forked import FORKS, run_forked
from served import QUICK, SHAPE, Served, scan, serve_unheard, text
from synthetic import acquisitions, header, letter

from gadgets.process import WAIT_VARIABLES
from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.connection import receive, tell
from gadgets.service.client import run_remote
from gadgets.service.server import Server
from gadgets.service.shared import Shared
from gadgets.stream.turns import Turns
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan


def test_a_client_that_names_its_chain(served):
    waveform = ismrmrd.Waveform.from_array(np.zeros((2, 6), np.uint32))
    with served.connect() as client:
        client.send(peer.FILENAME, b"quick.xml".ljust(1024, b"\0"))
        client.send_text(peer.HEADER, header(*SHAPE) + "\0")
        client.send_text(peer.TEXT, '{"parameters": {}}')  # as python-ismrmrd-server's client does
        # a waveform would abort Gadgetron's client
        client.send(peer.WAVEFORM, waveform.to_bytes())
        client.send_acquisitions(scan(0, 1))
        client.send(peer.CLOSE)
        images = client.images()
    assert [head.slice for head, _, _ in images] == [0, 1]
    for _, pixels, meta in images:
        np.testing.assert_allclose(pixels[0], letter(*SHAPE), atol=0.12)
        assert "fallback" not in meta


def test_writers_of_the_chain_select_the_items_returned(served):
    xml = QUICK.xml.replace(">ImageWriter<", ">WaveformWriter<")
    waveform = ismrmrd.Waveform.from_array(np.arange(12, dtype=np.uint32).reshape(2, 6))
    assert served.run(Chain("waveforms", xml), [waveform, *scan(0)]) == [waveform]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_client_that_sends_xml_over_ipv4_and_ipv6(served, host):
    if host == "[::1]" and not any(host in address for address in served.server.addresses):
        pytest.skip("no IPv6")
    (image,) = served.run(host=host)
    assert image.meta["sampler"] == "none"


def test_other_images_pass_through(served):
    image = ismrmrd.Image.from_array(np.random.default_rng(0).random((3, 4), np.float32))
    image.meta = ismrmrd.Meta({"ImageComment": "theirs"})
    back, _ = served.run(readouts=[image, *scan(0)])
    assert back == image
    assert back.meta == image.meta


def test_a_client_without_a_scan_gets_close(served):
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
    ("properties", "expected"),
    [({"sampel": 1}, "unknown property"), ({"prior": "mine"}, "prior 'mine' was not loaded")],
)
def test_a_node_reports_errors_by_message_8(served, properties, expected):
    with gadgetron_node(served, **properties) as node:
        node.send_acquisitions(scan(0))
        node.hears_nothing()  # an error while input flows often ends Gadgetron's process
        node.send_acquisitions(scan(1))
        node.send(peer.CLOSE)
        ((number, text),) = node.receive()
    assert number == peer.ERROR
    assert expected in text
    assert len(served.run()) == 1


@pytest.mark.parametrize(
    ("config", "xml", "expected"),
    [
        ("<configuration/>", "<ismrmrd", "not well-formed"),
        ("<configuration/>", header(65535, 65535), "encodedSpace 65535 x 65535"),
        ("<configuration/>", header(*SHAPE, trajectory="spiral"), "trajectory spiral"),
    ],
)
def test_a_node_sends_no_text(served, config, xml, expected):
    with served.connect() as node:  # to Gadgetron an illegal message, that hides what was wrong
        node.send_text(peer.CONFIG, config)
        node.send_text(peer.HEADER, xml)
        node.send_acquisitions(scan(0))
        node.hears_nothing()
        node.send(peer.CLOSE)
        ((number, words),) = node.receive()
    assert number == peer.ERROR
    assert expected in words


def test_a_node_out_of_step_reports_when_its_peer_pauses(served, monkeypatch):
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


def test_input_of_a_failed_node_is_read_by_one_thread_at_a_time():
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


def test_concurrent_scans_share_one_prior_in_turns():
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


def test_too_many_connections_are_refused_with_a_message(monkeypatch):
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
            running.connect().__exit__()  # too many for a message
            node.send(peer.CLOSE)
            assert node.receive() == [(peer.ERROR, "the server has too many connections")]
        running.wait(lambda: len(running.server.open_connections) == 1)
        first.send_acquisitions(scan(0))
        first.send(peer.CLOSE)
        assert len(first.images()) == 1


def test_every_scan_is_captured_in_the_folder_of_the_server(tmp_path):
    elsewhere = QUICK.with_properties({"capture": str(tmp_path / "not here")})
    with Served(Shared({}, capture=str(tmp_path))) as running:
        assert len(running.run(elsewhere)) == 1
    (path,) = tmp_path.iterdir()
    with open_scan(path) as saved:
        assert list(saved) == scan(0)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16"])
def test_documents_are_read_in_their_declared_encoding(tmp_path, encoding):
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


def test_a_port_in_use_is_reported(served):
    with pytest.raises(InputError, match=f"port {served.port} of 127.0.0.1 is in use"):
        Server(["127.0.0.1"], served.port)
    with pytest.raises(InputError, match="cannot listen on nowhere"):
        Server(["nowhere.invalid"], 0)


def test_closing_releases_the_port():
    server = Server(["127.0.0.1"], 0)
    port = server.port
    server.close()
    Server(["127.0.0.1"], port).close()


def test_the_command_refuses_an_unknown_prior():
    command = [sys.executable, "-Walways", "-m", "scoremri_core", "serve", "--port", "0"]
    done = subprocess.run([*command, "--prior", "absent"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "prior 'absent': expected one of default" in done.stderr
    assert "unclosed" not in done.stderr


def test_images_are_sent_with_closed_standard_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = FORKS.Process(target=serve_unheard, args=(port, tmp_path))
    process.start()
    try:
        for _ in range(600):
            with contextlib.suppress(InputError):
                images = list(run_remote(f"127.0.0.1:{port}", QUICK, header(*SHAPE), scan(0)))
                break
            time.sleep(0.1)
        assert len(images) == 1
        process.terminate()
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()


def test_the_command_serves_until_a_signal(tmp_path):
    command = [sys.executable, "-m", "scoremri_core", "serve", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    environment["OMP_DISPLAY_ENV"] = "true"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            words = ""
            for line in process.stderr:
                words += line
                if "Serving on 127.0.0.1:" in line:
                    port = int(line.split("127.0.0.1:")[1].split()[0])
                    break
            chain = QUICK.with_properties({"sampler": "posterior", "samples": "2", "steps": "2"})
            images = list(run_remote(f"127.0.0.1:{port}", chain, header(*SHAPE), scan(0)))
            assert [image.image_series_index for image in images] == [1, 2]
            busy = run_forked("serve", "--port", port)
            assert busy.returncode == 2
            assert busy.stderr.strip().endswith(b"in use: choose another with --port")
            process.terminate()
            assert process.wait(30) == 0
            words += process.stderr.read()
            assert "Stopped: 1 connection served" in words
            peer.shows_that_threads_sleep(words)
        finally:
            with contextlib.suppress(OSError):
                process.kill()
