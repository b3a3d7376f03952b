"""`scoremri stream` through the pipes of real processes."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time

import ismrmrd
import numpy as np
import pytest
from forked import PATIENCE
from ismrmrd.serialization import ConfigFile, ConfigText, ProtocolDeserializer
from mrd_streams import STREAMS, images_1, images_2, mrd, set_time, simulated, version_1, version_2

PROGRAM = [sys.executable, "-m", "scoremri_core", "stream"]
QUICK = ("-p", "samples=2", "-p", "steps=3", "-p", "device=cpu")


def run(data, *options, **environment):
    """Exit code, standard output and the lines of standard error."""
    done = subprocess.run(
        [*PROGRAM, *options],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def replayed(scan):
    """Images of `replay` of the same file, by series."""
    out = scan.with_name("replayed.h5")
    arguments = ["replay", str(scan), "-o", str(out), *QUICK]
    subprocess.run([*PROGRAM[:-1], *arguments], check=True, capture_output=True)
    with ismrmrd.Dataset(str(out), mode="r") as dataset:
        return [dataset.read_image(f"image_{series}", 0) for series in (1, 2)]


def test_version_1_gives_the_images_of_replay(scan, replayed):
    code, out, message = run(version_1(scan), *QUICK)
    assert code == 0, message
    images = images_1(out)
    assert [image.image_series_index for image in images] == [1, 2]
    for image, expected in zip(images, replayed, strict=True):
        np.testing.assert_array_equal(image.data, expected.data)
        assert bytes(image.getHead()) == bytes(expected.getHead())
        assert image.meta["DataRole"] == expected.meta["DataRole"]


def test_version_2_gives_the_images_of_replay(scan, replayed):
    code, out, message = run(version_2(scan), *QUICK)
    assert code == 0, message
    images = images_2(out)
    assert len(images) == 2
    for image, expected in zip(images, replayed, strict=True):
        np.testing.assert_array_equal(image.data, expected.data)
        head, other = image.head, expected.getHead()
        assert head.image_type == mrd.ImageType.MAGNITUDE
        for name in ("image_series_index", "image_index", "slice"):
            assert getattr(head, name) == getattr(other, name)
        wanted = mrd.ImageHeader(image_type=mrd.ImageType.MAGNITUDE)
        set_time(wanted, "acquisition_time_stamp", other.acquisition_time_stamp)
        for name in {"acquisition_time_stamp", "acquisition_time_stamp_ns"} & set(vars(wanted)):
            assert getattr(head, name) == getattr(wanted, name) > 0
        for name in ("field_of_view", "position", "slice_dir", "patient_table_position"):
            np.testing.assert_array_equal(getattr(head, name), list(getattr(other, name)))
        np.testing.assert_array_equal(head.col_dir, list(other.read_dir))
        np.testing.assert_array_equal(head.line_dir, list(other.phase_dir))
        assert [v.value for v in image.meta["sampler"]] == [expected.meta["sampler"]]


@pytest.mark.parametrize("version", STREAMS)
def test_the_version_can_be_given(scan, version):
    data = STREAMS[version](scan)
    code, out, _ = run(data, "-p", "sampler=none", "--format", version)
    assert code == 0
    assert (out[:5] == b"yardl") == (version == "v2")
    (other,) = set(STREAMS) - {version}
    assert run(data, "--format", other)[0] == 2


def test_log_and_prints_of_libraries_go_to_standard_error(scan, tmp_path):
    (tmp_path / "loud.py").write_text(
        "from gadgets.score_recon import reconstruct_acquisitions\n"
        "def target(connection):\n"
        "    print('printed by a library', flush=True)\n"
        "    reconstruct_acquisitions(connection)\n"
    )
    chain = tmp_path / "loud.xml"
    chain.write_text(
        "<configuration><version>2</version><stream><external>"
        '<execute name="loud" target="target" type="python"/>'
        "<configuration/></external></stream></configuration>"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code, out, message = run(version_1(scan), "-c", chain, "-p", "sampler=none", PYTHONPATH=path)
    assert code == 0
    assert images_1(out)
    assert "printed by a library" in message
    assert any("image sent" in line for line in message)


def test_a_chain_in_the_stream_is_ignored_with_a_warning(scan):
    data = version_1(scan, ConfigFile("default.xml"), ConfigText("<configuration/>"))
    code, out, message = run(data, "-p", "sampler=none")
    assert code == 0
    assert images_1(out)
    assert any("chain name 'default.xml' ignored" in line for line in message)


def test_images_are_written_before_the_scan_ends(scan):
    """A frame is sent while the pipe is still open: nothing waits for its end."""
    with subprocess.Popen(
        [*PROGRAM, "-p", "sampler=none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        process.stdin.write(version_1(scan)[:-2])
        process.stdin.flush()
        items = ProtocolDeserializer(process.stdout).deserialize()
        assert next(items).image_series_index == 1
        process.stdin.write(struct.pack("<H", 4))
        process.stdin.close()
        assert not list(items)  # a classical image has no standard deviation
        assert process.wait(PATIENCE) == 0
        guard.cancel()


@pytest.mark.parametrize("version", STREAMS)
def test_a_closed_output_is_reported(scan, version):
    with subprocess.Popen(
        [*PROGRAM, "-p", "sampler=none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        process.stdin.write(STREAMS[version](scan))
        process.stdin.close()
        message = process.stderr.read().decode().splitlines()
        assert process.wait(PATIENCE) == 2
    assert "scoremri: standard output was closed by its reader before the last image" in message
    assert not any("Traceback" in line or "Exception" in line for line in message)


@pytest.mark.parametrize("sent", [0, 10_000], ids=["before the header", "in the scan"])
def test_an_interrupt_ends_the_command(scan, sent):
    with subprocess.Popen(
        [*PROGRAM, "-p", "sampler=none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # may be ignored in the background of a shell
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdin.write(version_1(scan)[:sent])
        process.stdin.flush()
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 130
    assert message.endswith("scoremri: interrupted\n")


def test_a_missing_mrd_is_one_sentence(scan, tmp_path):
    (tmp_path / "mrd.py").write_text("raise ImportError('not here')")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code, _, message = run(version_2(scan), PYTHONPATH=path)
    assert code == 2
    assert message[-1].endswith("needs the package mrd-python: pip install 'scoremri[mrd]'")
    assert run(version_1(scan), "-p", "sampler=none", PYTHONPATH=path)[0] == 0


def test_a_terminal_is_refused():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(PROGRAM, stdin=theirs, capture_output=True, timeout=PATIENCE)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"standard input is a terminal" in done.stderr
