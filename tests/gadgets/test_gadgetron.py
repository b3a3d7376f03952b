"""Gadgetron's own programs, where they are on the PATH: its client with our server, its server with
our chain.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
from served import QUICK, SHAPE, Served, scan
from synthetic import header, letter

from gadgets.service.client import run_remote
from gadgets.service.host import run_chain
from scoremri_core.errors import InputError
from scoremri_core.scans.files import write_scan

ROOT = Path(__file__).parents[2]
NOISE = (
    "<measurementInformation><measurementID>a_b_c_2</measurementID>"
    "<patientPosition>HFS</patientPosition><measurementDependency>"
    "<dependencyType>Noise</dependencyType><measurementID>a_b_c_1</measurementID>"
    "</measurementDependency></measurementInformation>"
)


def program(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on the PATH")
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains")
    (folder / "quick.xml").write_text(QUICK.xml)
    with Served(chains=str(folder)) as running:
        yield running


def ask(served, *options):
    """Return what the Gadgetron client prints.

    It sometimes fails to connect because of a race (134, or 255 after its time-out),
    before it has sent anything.
    """
    client = program("gadgetron_ismrmrd_client")
    for _ in range(10):
        done = subprocess.run(
            [client, "-a", "127.0.0.1", "-p", str(served.port), "-t", "1000", *map(str, options)],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("dependency", ["", NOISE], ids=["alone", "noise_elsewhere"])
def test_gadgetron_client_receives_images(served, tmp_path, dependency):
    """With a noise dependency, the client first opens a connection without a scan."""
    source, output = tmp_path / "in.h5", tmp_path / "out.h5"
    before = "<experimentalConditions>"
    xml = header(*SHAPE).replace(before, f"{dependency}{before}")
    write_scan(source, xml, scan(0, 1))
    ask(served, "-c", "quick.xml", "-f", source, "-o", output, "-G", "images")
    with ismrmrd.Dataset(str(output), "images", False) as kept:
        assert kept.number_of_images("image_1") == 2
        for number in range(2):
            image = kept.read_image("image_1", number)
            assert image.slice == number
            assert image.meta["sampler"] == "none"
            np.testing.assert_allclose(image.data[0, 0], letter(*SHAPE), atol=0.12)


def test_gadgetron_client_receives_the_error(served, tmp_path):
    source = tmp_path / "in.h5"
    write_scan(source, header(*SHAPE), scan(0))
    printed = ask(served, "-c", "nope.xml", "-f", source, "-o", tmp_path / "out.h5")
    assert "unknown chain 'nope.xml': known are quick.xml, score_recon.xml" in printed


def test_gadgetron_client_queries_the_server(served):
    assert ask(served, "-q", "-Q", "gadgetron::info").strip() == "scoremri"


def test_gadgetron_server_returns_the_images_of_replay(tmp_path):
    gadgetron = program("gadgetron")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(sys.executable).parent  # the server runs the first python on its PATH
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    log = tmp_path / "server.log"
    with (
        log.open("w") as words,
        subprocess.Popen(
            [gadgetron, "-p", str(port)], cwd=tmp_path, env=environment, stdout=words, stderr=words
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 120
            while True:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                try:
                    came = list(run_remote(f"127.0.0.1:{port}", QUICK, header(*SHAPE), scan(0)))
                    break
                except InputError as error:
                    if "no server answers" not in str(error):
                        raise
                    time.sleep(0.1)
        finally:
            server.terminate()
    (ours,) = run_chain(QUICK, header(*SHAPE), scan(0))
    (theirs,) = [item for item in came if isinstance(item, ismrmrd.Image)]
    np.testing.assert_array_equal(theirs.data, ours.data)
    for name in ("position", "read_dir", "phase_dir", "slice_dir", "field_of_view"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    assert (theirs.image_index, theirs.image_series_index) == (1, 1)
