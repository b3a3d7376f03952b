import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import peer
import pytest
from forked import run_forked
from peer import Peer
from served import QUICK, SHAPE, Served, scan
from synthetic import acquisitions, header, letter

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.service.client import run_remote
from gadgets.service.metrics import Metrics
from gadgets.service.server import Server
from gadgets.service.shared import Shared
from gadgets.service.status import Status
from scoremri_core.errors import InputError

parser = pytest.importorskip("prometheus_client.parser")


def get(port, path, method="GET", host="127.0.0.1"):
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=20)) as client:
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def metrics(port):
    code, text = get(port, "/metrics")
    assert code == 200
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


class Watched(Served):
    """A server in a thread with its status."""

    def __init__(self, priors, **options):
        watch = []  # made by the status, which needs the server
        super().__init__(Shared(priors, "cpu", observer=lambda: watch[0].metrics.scan()), **options)
        self.status = Status(["127.0.0.1"], 0, self.server)
        watch.append(self.status)
        self.status_port = self.status.addresses[0][1]

    def __exit__(self, *problem):
        super().__exit__(*problem)
        self.status.close()

    def metrics(self):
        return metrics(self.status_port)


class Normal:
    name = "normal"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1).to(x.device) ** 2)


def test_scans_are_counted():
    sampled = Chain.load("score_recon.xml").with_properties({"samples": "2", "steps": "2"})
    bad = scan(0, 1)
    for readout in bad[: len(bad) // 2]:
        readout.data[1] = np.nan
    with Watched({"default": Normal()}) as running:
        before = running.metrics()
        assert before["scoremri_frames_total",] == 0
        assert before["scoremri_scans_done_total", "complete"] == 0
        running.run(sampled, scan(0, 1, 2))
        running.run(QUICK, bad)
        with running.connect() as node:
            node.start(header(*SHAPE), sampler="none")
            node.send_acquisitions(scan(4))
            node.send(peer.CLOSE)
            assert len(node.images()) == 1
        with running.connect() as client:
            client.send(peer.FILENAME, b"nope".ljust(1024, b"\0"))
            client.send_text(peer.HEADER, header(*SHAPE))
            client.send(peer.CLOSE)
            client.receive()
        with running.connect() as client:  # asks, and is no scan
            client.send(peer.CLOSE)
            client.receive()
        running.wait(lambda: not running.server.open_connections)
        found = running.metrics()
    assert found["scoremri_frames_total",] == 6
    assert found["scoremri_fallbacks_total",] == 1
    assert found["scoremri_frames_waiting",] == found["scoremri_scans_open",] == 0
    assert found["scoremri_scans_waiting",] == 0
    assert found["scoremri_scans_done_total", "complete"] == 3
    assert found["scoremri_scans_done_total", "failed"] == 1
    assert found["scoremri_later_total", "lost"] == 0
    for stage in ("assembly", "coil maps", "sampling"):
        assert found["scoremri_stage_seconds_count", stage] >= 5
        assert found["scoremri_stage_seconds_sum", stage] > 0
    assert 3 <= found["scoremri_misfit_count",] <= 6
    assert np.isfinite(found["scoremri_misfit_sum",])
    assert found["scoremri_misfit_bucket", "+Inf"] == found["scoremri_misfit_count",]


def test_waiting_frames_are_counted_until_their_scan_ends():
    go = threading.Event()

    class Slow(Normal):
        def denoise(self, x, sigma):
            go.wait(60)
            return super().denoise(x, sigma)

    asked = peer.configuration(samples=1, steps=2)
    with Watched({"default": Slow()}) as running:
        with running.connect() as node:
            node.send_text(peer.CONFIG, asked)
            node.send_text(peer.HEADER, header(*SHAPE))
            node.send_acquisitions(scan(0, 1, 2))
            running.wait(lambda: running.metrics()["scoremri_frames_waiting",] == 3)
            assert running.metrics()["scoremri_scans_open",] == 1
        running.wait(lambda: not running.server.open_connections)  # it went away
        go.set()
        running.wait(lambda: running.metrics()["scoremri_frames_waiting",] == 0)
        assert running.metrics()["scoremri_scans_done_total", "failed"] == 1


def test_two_servers_in_one_process_have_separate_metrics():
    with Watched({}) as first, Watched({}) as second:
        first.run()
        assert first.metrics()["scoremri_frames_total",] == 1
        assert second.metrics()["scoremri_frames_total",] == 0


def test_readyz_is_200_while_scans_are_accepted():
    server = Server(["127.0.0.1"], 0)
    with contextlib.closing(Status(["127.0.0.1"], 0, server)) as status:
        port = status.addresses[0][1]
        assert get(port, "/healthz") == (200, "alive\n")
        assert get(port, "/readyz") == (503, "loading\n")
        running = threading_run(server)
        deadline = time.monotonic() + 10
        while get(port, "/readyz") != (200, "ready\n"):
            assert time.monotonic() < deadline
        server.stop()
        assert get(port, "/readyz")[0] == 503
        running.join(10)
        assert get(port, "/nothing")[0] == 404
        assert get(port, "/healthz?verbose", "HEAD") == (200, "")
        assert get(port, "/metrics", "POST")[0] == 501
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")


def threading_run(server):
    thread = threading.Thread(target=server.run, args=(Shared({}),), daemon=True)
    thread.start()
    return thread


def test_missing_prometheus_client_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    server = Server(["127.0.0.1"], 0)
    with pytest.raises(InputError, match=r"needs prometheus-client: pip install 'scoremri\[stat"):
        Metrics(server)
    server.close()


COMMAND = [sys.executable, "-m", "scoremri_core", "serve", "--port", "0", "--status-port"]


def test_a_status_port_in_use_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_forked("serve", "--port", 0, "--status-port", port)
    assert done.returncode == 2
    message = f"scoremri: port {port} of 127.0.0.1 is in use: choose another with --status-port"
    assert done.stderr.decode().splitlines() == [message]


def test_readyz_is_503_while_open_scans_finish():
    with subprocess.Popen([*COMMAND, "0"], stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if "Status on" in line:
                    status = int(line.split("http://127.0.0.1:")[1].split()[0])
                if "Serving on" in line:
                    port = int(line.split("127.0.0.1:")[1].split()[0])
                    break
            assert get(status, "/readyz") == (200, "ready\n")
            assert len(list(run_remote(f"127.0.0.1:{port}", QUICK, header(*SHAPE), scan(0)))) == 1
            with Peer(socket.create_connection(("127.0.0.1", port))) as client:
                client.send_text(peer.CONFIG, QUICK.xml)
                client.send_text(peer.HEADER, header(*SHAPE))
                lines = acquisitions(letter(*SHAPE), noise=0.002)
                client.send_acquisitions(lines[:9])
                while metrics(status)["scoremri_scans_open",] < 1:
                    time.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                while get(status, "/readyz")[0] == 200:
                    time.sleep(0.05)
                assert get(status, "/readyz") == (503, "draining\n")
                assert get(status, "/healthz")[0] == 200
                client.send_acquisitions(lines[9:])
                client.send(peer.CLOSE)
                assert len(client.images()) == 1
            assert process.wait(30) == 0
        finally:
            process.kill()
