"""FIRE, the interface of Siemens scanners: its messages, and a scan with its client."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import peer
import pytest
from forked import run_forked
from served import QUICK, SHAPE, Served, scan
from synthetic import header, letter

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.parameters import Parameters
from gadgets.service.server import Server
from gadgets.service.shared import Shared
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan, write_scan


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains")
    (folder / "quick.xml").write_text(QUICK.xml)
    with Served(chains=str(folder), default="quick") as running:
        yield running


def name(text):
    return struct.pack("<H1024s", peer.FILENAME, text.encode())


def run(running, config, text=None, /, **parameters):
    """What comes back of a scan: the sentences, then the images."""
    with running.connect() as client:
        client.socket.sendall(config)
        client.send_text(peer.HEADER, header(*SHAPE) + "\0")
        if text is None:
            text = json.dumps({"version": "1.1.0", "parameters": parameters})
        client.send_text(peer.TEXT, text + "\0")
        client.send_acquisitions(scan(0))
        client.send(peer.CLOSE)
        received = client.receive()
    message = [item for number, item in received if number == peer.TEXT]
    images = [item for number, item in received if number == peer.IMAGE]
    assert [number for number, _ in received] == [peer.TEXT] * len(message) + [peer.IMAGE] * len(
        images
    )
    return message, images


def test_parameters_set_the_nodes_properties(served):
    message, ((head, _, meta),) = run(served, name("quick"), series="7", seed=3.0)
    assert message == []
    assert (head.image_series_index, meta["seed"], meta["sampler"]) == (7, "3", "none")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"sendOriginal": "False"}, "unknown property 'sendOriginal': known are sampler, samples"),
        ({"samples": "many"}, "property samples='many': expected a whole number from 1 to 10000"),
        ({"samples": None}, "property samples='null': expected"),
        (
            {"outputs": ["mean", "sum"]},
            "property outputs='mean,sum': expected a comma-sep",
        ),
        ({"noise": float("nan")}, "property noise='NaN': expected one of"),
        ({"sampler": "hmc"}, "prior 'default' was not loaded by this server"),
        ({"prior": "a\nb\udc00" + "c" * 5000}, "parameter 'prior' has unprintable characters"),
        ({"x" * 5000: 1}, "unknown property 'xxx"),
        ({"config": "mine"}, "unknown chain 'mine': known are quick.xml, score_recon.xml"),
        ({"customconfig": "../quick"}, "unknown chain '../quick'"),
    ],
)
def test_an_invalid_parameter_is_reported_and_the_scan_goes_on(served, parameters, words):
    (message,), ((head, _, _),) = run(served, name("quick"), series=9, **parameters)
    assert words in message
    assert "\n" not in message
    assert len(message) < 1100
    assert message.endswith((" the scan goes on without it", " ..."))
    assert head.image_series_index == 9  # which the others are taken from


@pytest.mark.parametrize(
    "text", ["{", '{"parameters": 3}', "[" * 3, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_invalid_json_is_reported_and_the_scan_goes_on(served, text):
    message, images = run(served, name("quick"), text)
    assert len(images) == 1
    if text.startswith("{"):
        assert "the JSON text" in message[0]
    assert len(message) == text.startswith("{")


def test_plain_text_is_not_parameters(served, caplog):
    with caplog.at_level("INFO"):
        message, images = run(served, name("quick"), "hello\x1b[2J there")
    assert (message, len(images)) == ([], 1)
    assert "text of the client: hello [2J there" in caplog.text


@pytest.mark.parametrize(
    ("config", "parameters", "message"),
    [
        (name("quick.xml"), {}, []),
        (struct.pack("<HI", peer.CONFIG, 6) + b"quick\0", {}, []),  # a customconfig
        (name("openrecon"), {"config": "quick"}, []),
        (name("openrecon"), {"config": "openrecon", "customconfig": "quick"}, ["openrecon"]),
        (name("quick"), {"config": "score_recon", "customconfig": ""}, []),
        (name("invertcontrast"), {}, ["invertcontrast"]),
    ],
)
def test_fire_names_of_chains(served, config, parameters, message):
    sentences, ((_, _, meta),) = run(served, config, sampler="none", **parameters)
    assert meta["sampler"] == "none"
    assert len(sentences) == len(message)
    for sentence, asked in zip(sentences, message, strict=True):
        assert f"unknown chain '{asked}': known are " in sentence


def test_an_unknown_name_without_a_default_is_an_error():
    with Served() as running:
        (message,), images = run(running, name("invertcontrast"))
        assert message.startswith(
            "the scan failed: unknown chain 'invertcontrast': known are score"
        )
        assert images == []
        message, images = run(running, name("a" * 900), config="score_recon", sampler="none")
        assert (message, len(images)) == ([], 1)


def test_sampler_and_steps_are_set_in_any_order():
    class Zero:
        name = "zero"

        def denoise(self, x, sigma):
            return x * 0

    with Served(Shared({"default": Zero()}, "cpu")) as running:
        asked = {"steps": "3", "samples": "2", "sampler": "langevin"}
        message, images = run(running, name("score_recon"), **asked)
    assert message == []
    assert {meta["sampler"] for _, _, meta in images} == {"langevin"}


def test_an_unknown_default_is_refused():
    with pytest.raises(InputError, match=r"unknown chain 'nope': known are score_recon.xml"):
        Server(port=0, default="nope")


def test_a_too_long_name_is_unknown():
    for asked in ("a" * 1000, "a\0b", "", ".", "..", "/"):
        with pytest.raises(InputError, match="unknown chain"):
            Chain.served(asked)


def test_values_are_formatted_as_in_a_chain():
    text = '{"parameters": {"a": 1, "b": 2.0, "c": 0.5, "d": ["x", 3.0], "e": true, "f": " g "}}'
    assert Parameters.read(text).properties == {
        "a": "1", "b": "2", "c": "0.5", "d": "x,3", "e": "true", "f": "g"
    }  # fmt: skip
    assert Parameters.read('{"version": "1"}') == Parameters()


COMMAND = [sys.executable, "-m", "scoremri_core", "serve"]


def test_the_command_line_of_fire(tmp_path):
    log, saved = tmp_path / "new" / "server.log", tmp_path / "share" / "saved_data"
    # as its start script writes them
    options = ["-v", "-r", "-H=127.0.0.1", "-p=0", f"-l={log}", "-d=score_recon", "-m"]
    options += ["-s", "-S", str(saved)]
    with subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            while not log.exists() or "Serving on" not in log.read_text():
                assert process.poll() is None
                time.sleep(0.05)
            assert log.read_bytes().count(b"\r\n") == len(log.read_bytes().splitlines())
            assert "Serving on 127.0.0.1:" in log.read_text()
            port = int(log.read_text().split("127.0.0.1:")[1].split()[0])
            with peer.Peer(socket.create_connection(("127.0.0.1", port), 10)) as client:
                client.socket.sendall(name("invertcontrast"))
                client.send_text(peer.HEADER, header(*SHAPE))
                client.send_text(peer.TEXT, '{"parameters": {"sampler": "none"}}')
                client.send_acquisitions(scan(0))
                client.send(peer.CLOSE)
                (_, message), (_, (_, _, meta)) = client.receive()
            assert "score_recon.xml is used instead" in message
            assert meta["sampler"] == "none"
            process.terminate()
            assert process.wait(30) == 0
            assert "Stopped" in log.read_text()
            (recorded,) = saved.iterdir()
            with open_scan(recorded) as kept:
                assert len(list(kept)) == len(list(scan(0)))
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p=x"], "port 'x': expected an integer from 0 to 65535"),
        (["-p", "65536"], "port '65536': expected"),
        (["-l", "/dev/null/x.log"], "/dev/null/x.log: cannot write the log"),
        (["-s", "-S", "/dev/null/x"], "/dev/null/x: cannot save scans"),
        (["-s", "--capture", "."], "--capture and -s: expected only one"),
        (["-p", "0", "-d", "nope"], "unknown chain 'nope': known are score_recon.xml"),
    ],
)
def test_errors_of_the_command_line_are_reported(options, message):
    done = run_forked("serve", *options)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert message in line


def test_the_client_of_python_ismrmrd_server(served, tmp_path):
    client = Path(os.environ.get("SCOREMRI_FIRE_CLIENT", ""), "client.py")
    if not client.is_file():
        pytest.skip("no client.py of python-ismrmrd-server in SCOREMRI_FIRE_CLIENT, a folder")
    source, output = tmp_path / "in.h5", tmp_path / "out.h5"
    write_scan(source, header(*SHAPE), scan(0, 1))
    with h5py.File(source, "a") as file:
        text = '{"parameters": {"config": "score_recon", "sampler": "none", "series": "5", "x": 1}}'
        kind = h5py.special_dtype(vlen=bytes)
        file["dataset"].create_dataset("configAdditional", data=[text.encode()], dtype=kind)
    done = subprocess.run(
        [sys.executable, client.resolve(), str(source), "-o", str(output), "-G", "images",
         "-p", str(served.port), "-a", "127.0.0.1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unknown property 'x': known are" in done.stdout + done.stderr
    with ismrmrd.Dataset(str(output), "images", False) as kept:
        assert kept.number_of_images("image_5") == 2
        for number in range(2):
            image = kept.read_image("image_5", number)
            assert image.slice == number
            assert image.meta["SeriesDescription"] == "scoremri classical reconstruction"
            np.testing.assert_allclose(image.data[0, 0], letter(*SHAPE), atol=0.12)
