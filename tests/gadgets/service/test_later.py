import json
import os
import tempfile
import threading
import time

import numpy as np
import peer
import pytest
from served import SHAPE, Served, scan
from synthetic import header

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.service.client import run_remote
from gadgets.service.host import run_chain
from gadgets.service.later import Later
from gadgets.service.shared import Shared
from scoremri_core.errors import InputError

SAMPLED = Chain.load("score_recon.xml").with_properties({"samples": "2", "steps": "2"})
LATER = SAMPLED.with_properties({"later": "true"})


def named(measurement):
    information = (
        f"<measurementInformation><measurementID>{measurement}</measurementID>"
        "<patientPosition>HFS</patientPosition></measurementInformation><acquisitionSystem"
    )
    return header(*SHAPE).replace("<acquisitionSystem", information, 1)


class Normal:
    """A prior that waits until it may go on."""

    name = "normal"

    def __init__(self):
        self.go = threading.Event()
        self.go.set()

    def denoise(self, x, sigma):
        assert self.go.wait(60)
        return x / (1 + sigma.reshape(-1, 1, 1).to(x.device) ** 2)


class Patient(Served):
    def __init__(self, *later, **options):
        self.prior = Normal()
        self.later = Later(*later)
        self.shared = Shared({"default": self.prior}, "cpu")
        super().__init__(self.shared, later=self.later, **options)

    def scan(self, measurement, chain=LATER, slices=(0, 1)):
        address = f"127.0.0.1:{self.port}"
        return list(run_remote(address, chain, named(measurement), scan(*slices)))

    def fetch(self, measurement):
        address = f"127.0.0.1:{self.port}"
        return list(run_remote(address, "score_recon_fetch", named(measurement), []))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Nothing of a scan may be left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("scoremri_*"))


def test_images_of_a_deferred_scan_are_fetched():
    with Patient() as running:
        running.prior.go.clear()
        first = running.scan("45_6_ä")
        assert [image.slice for image in first] == [0, 1]
        for image in first:
            assert image.meta["sampler"] == "none"
            assert image.meta["later"].startswith("score_recon_fetch has the posterior images")
        running.prior.go.set()
        for _ in range(2):  # a connection that broke may ask again
            fetched = running.fetch("45_6_ä")
            expected = running.scan("other", SAMPLED)
            assert len(fetched) == 4
            for image, other in zip(fetched, expected, strict=True):
                np.testing.assert_array_equal(image.data, other.data)
                assert image.meta["sampler"] == "posterior"
                assert "later" not in image.meta


def test_a_fire_client_defers_by_a_parameter():
    with Patient() as running:
        with running.connect() as client:
            client.send(peer.FILENAME, b"score_recon".ljust(1024, b"\0"))
            client.send_text(peer.HEADER, named(7))
            asked = {"later": True, "samples": 2, "steps": 2}
            client.send_text(peer.TEXT, json.dumps({"parameters": asked}))
            client.send_acquisitions(scan(0))
            client.send(peer.CLOSE)
            ((_, _, meta),) = client.images()
        assert "measurement 7" in meta["later"]
        with running.connect() as client:
            client.send(peer.FILENAME, b"score_recon_fetch.xml".ljust(1024, b"\0"))
            client.send_text(peer.HEADER, named(7))
            client.send_acquisitions(scan(0))  # input is ignored
            client.send(peer.CLOSE)
            assert len(client.images()) == 2


def test_the_number_of_scans_is_limited():
    with Patient(2) as running:
        for measurement in "123":
            running.scan(measurement, slices=[0])
        with pytest.raises(
            InputError, match=r"no images of measurement '1': replaced .* 2 are kept"
        ):
            running.fetch("1")
        assert len(running.fetch("2")) == len(running.fetch("3")) == 2
        running.wait(lambda: not running.server.open_connections)
        assert running.server.scans_done == {"complete": 3, "failed": 0}  # fetching does not count


def test_images_expire():
    with Patient(20, 0.5) as running:
        running.scan("1", slices=[0])
        kept = running.later.find("1")
        running.wait(lambda: running.later.find("1") is None)
        assert kept is not None
        assert kept.done.is_set()
        with pytest.raises(InputError, match=r"no images of measurement '1': expired after 0.5 s"):
            running.fetch("1")


@pytest.mark.parametrize(("measurement", "keep"), [("", 20), ("1", 0)])
def test_images_that_cannot_be_deferred_are_sent_at_once(measurement, keep, caplog):
    with Patient(keep) as running:
        images = running.scan(measurement, slices=[0])
    assert [image.meta["sampler"] for image in images] == ["posterior"] * 2
    assert "later=true is not possible" in caplog.text


def test_an_invalid_value_is_reported():
    with Patient() as running, pytest.raises(InputError, match="later='soon': expected true or"):
        running.scan("1", SAMPLED.with_properties({"later": "soon"}))


def test_a_scan_that_fails_is_not_kept():
    with Patient() as running:
        with running.connect() as client:
            client.send_text(peer.CONFIG, LATER.xml)
            client.send_text(peer.HEADER, named("1"))
            client.send_acquisitions(scan(0)[:5])
            client.send(1234)
            client.receive()
        assert running.later.find("1") is None
        with running.connect() as client:
            client.send_text(peer.CONFIG, LATER.xml)
            client.send_text(peer.HEADER, named("2"))
            client.send_acquisitions(scan(0)[:5])
        running.wait(lambda: not running.server.open_connections)
        assert running.later.find("2") is None


def test_a_full_disk_costs_the_posterior_and_not_the_scan(monkeypatch, caplog):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Patient() as running:
        (image,) = running.scan("1", slices=[0])
        assert image.meta["sampler"] == "none"
    assert "its posterior images will not be computed" in caplog.text


def test_a_waiting_client_gets_the_images_of_a_stopping_server():
    with Patient() as running:
        running.prior.go.clear()
        running.scan("1", slices=[0])
        running.wait(lambda: not running.server.open_connections)
        got = []
        asking = threading.Thread(target=lambda: got.extend(running.fetch("1")))
        asking.start()
        running.wait(lambda: [s.started for s in running.server.open_connections] == [True])
        running.server.stop()
        time.sleep(0.3)
        running.prior.go.set()
        asking.join(30)
        running.thread.join(30)
        assert not running.thread.is_alive()
        assert len(got) == 2
        assert running.later.find("1") is None


def test_the_recording_is_removed_when_the_images_are_ready():
    with Patient() as running:
        running.prior.go.clear()
        running.scan("1", slices=[0])
        kept = running.later.find("1")
        assert kept.folder.stat().st_mode & 0o077 == 0
        running.prior.go.set()
        running.fetch("1")
        assert not list(kept.folder.glob("*.h5"))


def test_the_next_server_takes_over_promised_scans(tmp_path, caplog):
    """Of three scans one is computed, one is waiting, and one is incomplete."""
    folder = tmp_path / "later"
    with Patient(20, 60.0, folder) as running:
        running.scan("made", slices=[0])
        before = running.fetch("made")
        running.prior.go.clear()
        running.scan("waits", slices=[1])
        running.later.new("open", LATER)
    assert folder.stat().st_mode & 0o077 == 0
    assert "measurement waits waits in" in caplog.text
    running.prior.go.set()
    with Patient(20, 60.0, folder) as running:
        for one, other in zip(running.fetch("made"), before, strict=True):
            np.testing.assert_array_equal(one.data, other.data)
            assert (one.getHead(), one.meta) == (other.getHead(), other.meta)
        expected = list(run_chain(SAMPLED, named("waits"), scan(1), running.shared))
        for one, other in zip(running.fetch("waits"), expected, strict=True):
            np.testing.assert_array_equal(one.data, other.data)
        with pytest.raises(InputError, match="no images of measurement 'open'"):
            running.fetch("open")
        assert running.later.outcomes["lost"] == 0
        assert len(list(folder.glob("scan_*"))) == 2
    assert "the scan was incomplete" in caplog.text


def test_a_folder_has_one_server(tmp_path, caplog):
    with Patient(20, 60.0, tmp_path / "later") as running:
        running.scan("1", slices=[0])
        with Patient(20, 60.0, tmp_path / "later") as other:
            other.scan("2", slices=[0])
            assert len(other.fetch("2")) == 2
            assert other.later.find("1") is None
    assert "another server uses it" in caplog.text


def test_a_scan_that_crashes_every_server_is_abandoned(tmp_path, caplog):
    """For example, a scan that exhausts the memory."""
    folder = tmp_path / "later"
    with Patient(20, 60.0, folder) as running:
        running.prior.go.clear()
        running.scan("1", slices=[0])
        (path,) = folder.glob("scan_*/promise.json")
        running.wait(lambda: json.loads(path.read_text())["attempts"] == 1)
    saved = json.loads(path.read_text())
    assert saved["attempts"] == 0  # not counted: the server was stopped
    path.write_text(json.dumps({**saved, "attempts": 16}))
    for lost in (1, 0):  # reported again by the next server, counted once
        with Patient(20, 60.0, folder) as running:
            with pytest.raises(InputError, match="the server ended in each of 16 attempts"):
                running.fetch("1")
            assert running.later.outcomes["lost"] == lost
    assert (
        caplog.text.count("the images of measurement 1 are lost: the server ended in each of 16")
        == 2
    )


def test_failures_are_retried(monkeypatch, caplog):
    """As where a node ended early, halfway through its images."""
    failures = [3, 1]

    def failing(*given):
        for image in run_chain(*given):
            yield image
            if failures:
                raise InputError(f"failure {failures.pop()}")

    monkeypatch.setattr("gadgets.service.later.run_chain", failing)
    with Patient() as running:
        running.scan("1", slices=[0])
        assert len(running.fetch("1")) == 2
        assert "retrying: failure 1" in caplog.text
        assert "retrying: failure 3" in caplog.text
        failures[:] = range(9)
        running.scan("2", slices=[0])
        with pytest.raises(InputError, match="measurement '2': failure 6"):
            running.fetch("2")


def test_expired_images_are_reported_as_lost(caplog):
    with Patient(2) as running:
        for measurement in "123":
            running.scan(measurement, slices=[0])
            if measurement == "2":
                running.fetch("2")
        running.wait(lambda: not running.server.open_connections)
        with pytest.raises(InputError, match="measurement '2': fetched"):
            running.fetch("2")
        assert len(running.fetch("1")) == len(running.fetch("3")) == 2
        outcomes = {"promised": 3, "made": 3, "fetched": 3, "lost": 0}
        running.wait(lambda: running.later.outcomes == outcomes)
        running.scan("4", slices=[0])
        running.scan("5", slices=[0])
        running.scan("6", slices=[0])
    assert "the images of measurement 4 are lost: replaced by newer scans" in caplog.text


def test_a_waiting_client_gets_messages(monkeypatch):
    monkeypatch.setattr("gadgets.service.session.WAIT_SECONDS", 0.05)
    with Patient() as running:
        running.prior.go.clear()
        running.scan("1", slices=[0])
        with running.connect() as client:
            client.send(peer.FILENAME, b"score_recon_fetch".ljust(1024, b"\0"))
            client.send_text(peer.HEADER, named(1))
            client.send(peer.CLOSE)
            assert client.unpack("<HI")[0] == peer.TEXT
        running.wait(lambda: not running.server.open_connections)  # it has gone, and that is seen
        running.prior.go.set()
        assert len(running.fetch("1")) == 2
