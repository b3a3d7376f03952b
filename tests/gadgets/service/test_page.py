"""The page of a server: its queue and last frames, and whom it names."""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from served import QUICK, SHAPE, Served, scan
from synthetic import expected, header, letter, parsed

import scoremri_core
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.service import page
from gadgets.service.page import LAST, Page
from gadgets.service.shared import Shared
from gadgets.service.status import Status
from scoremri_core import reconstruct
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import ReportFrame

pytest.importorskip("prometheus_client")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
EVIL = "Doe^Jane<img src=x onerror=alert(1)>"
SUBJECT = f"""<subjectInformation><patientName>{EVIL.replace("<", "&lt;")}</patientName>
</subjectInformation>"""
NAMED = header(*SHAPE).replace("<acquisitionSystem", f"{SUBJECT}<acquisitionSystem", 1)
SHAPE_OF_ONE = np.eye(4)
OUTPUTS = "mean,std,samples,zero_filled,classical"
SAMPLED = Chain.load("score_recon.xml").with_properties(
    {"samples": "3", "steps": "2", "outputs": OUTPUTS}
)
SERVER = {"state": "ready", "device": "cpu", "priors": "default", "scans_open": 0}
SERVER |= {"scans_waiting": 0, "scans_done": {"failed": 2}}


class Normal:
    name = "normal"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1).to(x.device) ** 2)


class Watched(Served):
    """A server in a thread with its page."""

    def __init__(self, show_names=False):
        status = []  # made with the server that it needs
        super().__init__(Shared({"default": Normal()}, "cpu", observer=lambda: status[0].scan()))
        self.status = Status(["127.0.0.1"], 0, self.server, show_names)
        status.append(self.status)
        self.status_port = self.status.addresses[0][1]

    def __exit__(self, *problem):
        super().__exit__(*problem)
        self.status.close()

    @contextlib.contextmanager
    def get(self, path, **headers):
        port = self.status_port
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        ) as client:
            client.request("GET", path, headers=headers)
            yield client.getresponse()


def events(answer):
    """(name, data, id) of server-sent events as they come."""
    found = {}
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            found[name] = value
        elif found:
            yield found.get("event"), found.get("data"), found.get("id")
            found = {}


def frames(answer, count):
    kept = []
    for name, data, number in events(answer):
        if name == "frame":
            kept.append((data, number))
            if len(kept) == count:
                return kept
    return kept


@pytest.mark.parametrize("show_names", [False, True])
def test_frames_are_shown_when_ready_without_patient_names(show_names):
    with Watched(show_names) as running, running.get("/events") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        name, data, _ = next(events(answer))
        assert name == "queue"
        assert "<dt>Scans open</dt><dd>0</dd>" in data
        list(page_run(running, SAMPLED, NAMED, scan(0, 1)))
        (first, one), (second, two) = frames(answer, 2)
        assert (one, two) == ("1", "2")
        shown = json.loads(first)
        assert "slice 0" in shown["name"]
        assert "slice 1" in json.loads(second)["name"]
        assert {panel["title"]: len(panel["images"]) for panel in shown["panels"]} == {
            "Posterior mean": 1, "Posterior sd": 1, "Relative sd": 1, "Posterior samples": 3,
            "Zero-filled": 1, "Classical (regularised SENSE)": 1,
        }  # fmt: skip
        assert ("Doe^Jane" in first) == show_names
        with running.get("/events", **{"Last-Event-ID": "1"}) as later:
            ((again, number),) = frames(later, 1)
        assert (again, number) == (second, "2")


def test_frames_are_oriented_by_vendor(monkeypatch):
    shown = []
    monkeypatch.setattr(Page, "add", lambda self, frame: shown.append(frame))
    (readout, *_) = scan(0)
    kspace = SimpleNamespace(acceleration=1)
    frame = SimpleNamespace(header=readout.getHead(), field_of_view=(96, 80, 5), kspace=kspace)
    result = reconstruct(expected(letter(*SHAPE)), sampler="none")
    for vendor in ("GE", "SIEMENS"):
        parsed_header = parsed(header(*SHAPE))
        parsed_header.acquisitionSystemInformation.systemVendor = vendor
        observer = Page(None).scan()
        observer.scan_started(parsed_header)
        observer.frame_reconstructed(frame, result)
    straight, turned = (frame.geometry for frame in shown)
    assert straight.read_dir == tuple(readout.read_dir)
    assert turned.read_dir == tuple(-value for value in straight.read_dir)
    assert turned.phase_dir == tuple(-value for value in straight.phase_dir)


def page_run(running, chain, xml, readouts):
    from gadgets.service.client import run_remote

    return run_remote(f"127.0.0.1:{running.server.port}", chain, xml, readouts)


def test_the_page_connects_only_to_its_server():
    with Watched() as running, running.get("/") as answer:
        text = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/html")
    policy = re.search('content="(default-src[^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert policy.endswith("connect-src 'self';")
    assert len(re.findall("'sha256-", policy)) == text.count("<script>") == 2
    assert "For research only" in text


def test_a_classical_frame_is_shown_as_one():
    with Watched() as running, running.get("/events") as answer:
        list(page_run(running, QUICK, NAMED, scan(0)))
        ((frame, _),) = frames(answer, 1)
    assert "Not a posterior mean" in frame
    assert "Posterior sd" not in frame
    assert "Zero-filled" not in frame


def events_of(status_page, **asked):
    status_page.close()
    return [event.decode() for event in status_page.events(**asked)]


def test_old_frames_are_forgotten_and_readers_are_few(monkeypatch):
    server = SimpleNamespace(**SERVER)
    status_page = Page(server)
    for number in range(LAST + 3):
        status_page.add(ReportFrame(f"frame number {number}", SHAPE_OF_ONE))
    queue, *shown = events_of(status_page)
    assert queue.startswith("event: queue")
    assert [int(re.search(r"frame number (\d+)", each)[1]) for each in shown] == [
        *range(3, LAST + 3)
    ]
    assert len(events_of(status_page, last=LAST + 2)) == 2
    assert len(events_of(status_page, last=1000)) == 1 + LAST  # of a server that ran before
    monkeypatch.setattr(page, "READERS", 1)
    first = status_page.events()
    next(first)
    assert events_of(status_page) == []
    first.close()
    assert len(events_of(status_page)) == 1 + LAST


def test_scans_are_in_the_queue_until_they_end():
    status_page = Page(SimpleNamespace(**SERVER))
    scan = status_page.scan()
    scan.frame_received()
    scan.frame_received()
    (queue,) = events_of(status_page)
    assert "<td>scan 1</td><td>0</td><td>2</td><td></td><td></td>" in queue
    assert "<dt>Scans done</dt><dd>2 failed</dd>" in queue
    assert f"scoremri {scoremri_core.__version__}, ready" in queue
    assert "<dt>Device</dt><dd>cpu</dd><dt>Priors</dt><dd>default</dd>" in queue
    scan.close()
    (queue,) = events_of(status_page)
    assert "<td>" not in queue


def test_progress_within_a_frame_and_time_left(monkeypatch):
    now = 100.0
    monkeypatch.setattr(page.time, "monotonic", lambda: now)
    monkeypatch.setattr(page, "_shown", lambda *_: ReportFrame("one", SHAPE_OF_ONE))
    status_page = Page(SimpleNamespace(**SERVER))
    scan = status_page.scan()
    for _ in range(3):
        scan.frame_received()
    for level in (1, 2):
        scan.level_sampled(1, SimpleNamespace(level=level, levels=4, done=level / 4))
        now += 5
    assert scan.level == "noise level 2 of 4"
    assert scan.time_left() == "100 s"  # a fourth of a frame in 10 s, 2.5 frames remain
    now += 5
    scan.frame_reconstructed(None, None)
    assert scan.level == ""
    assert scan.time_left() == "40 s"  # three fourths in 15 s, 2 frames remain
    (queue, _) = events_of(status_page)
    assert "<td>1</td><td>2</td><td></td><td>40 s</td>" in queue


def test_fallbacks_are_counted():
    status_page = Page(SimpleNamespace(**SERVER))
    status_page.add(ReportFrame("one", SHAPE_OF_ONE))
    status_page.add(ReportFrame("two", SHAPE_OF_ONE, facts=Facts(fallback="no calibration lines")))
    queue, *_ = events_of(status_page)
    assert "<dt>Frames done</dt><dd>2, 1 of them classical fallbacks</dd>" in queue


class Delayed(BaseHTTPRequestHandler):
    """The page, its events and a delayed image: browsers dump complete pages."""

    status_page, sent = None, threading.Event()

    def do_GET(self):
        self.send_response(200)
        self.send_header(
            "Content-Type", "text/event-stream" if "events" in self.path else "text/html"
        )
        self.end_headers()
        if self.path == "/":
            text = (
                self.status_page.document()
                .decode()
                .replace("default-src 'none';", "default-src 'none'; img-src 'self';")
            )
            self.wfile.write(text.replace("<body>", '<body><img src="late">').encode())
        elif self.path == "/events":
            with contextlib.suppress(OSError):
                for event in self.status_page.events():
                    self.wfile.write(event)
                    if event.startswith(b"event: frame"):
                        self.sent.set()
        else:
            self.sent.wait(60)
            time.sleep(1)

    def log_message(self, *_):
        pass


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
def test_frames_are_shown_in_a_browser(tmp_path):
    Delayed.status_page = status_page = Page(SimpleNamespace(**SERVER))
    status_page.add(ReportFrame("a new frame", SHAPE_OF_ONE))
    with ThreadingHTTPServer(("127.0.0.1", 0), Delayed) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             f"http://127.0.0.1:{http.server_port}/"],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        status_page.close()
        http.shutdown()
    assert "<h2>a new frame</h2>" in done.stdout
    assert "<dt>Scans done</dt><dd>2 failed</dd>" in done.stdout
