"""Standard streams that are closed, or whose reader goes away, cost no image."""

import io
import os
import subprocess
import sys

import h5py
import pytest

from gadgets.program import _RobustFile
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan


@pytest.mark.parametrize("gone", ["closed", "a terminal"])
def test_images_are_written(tmp_path, gone):
    """As under cron, as a service, or when the terminal of a job is closed."""
    scan, out = tmp_path / "scan.h5", tmp_path / "out.h5"
    full = SimulatedScan(matrix=(32, 32), coils=2)
    write_scan(scan, full.header, full)
    reader, writer = os.openpty()
    command = ("replay", scan, "-o", out, "-p", "sampler=none", "--report", tmp_path / "page.html")
    process = subprocess.Popen(
        [sys.executable, "-m", "scoremri_core", *command],
        stdout=writer,
        stderr=writer,
        preexec_fn=lambda: [os.close(n) for n in range(3)] if gone == "closed" else None,
    )
    os.close(writer)
    os.close(reader)
    assert process.wait(100) == 0
    assert (tmp_path / "page.html").stat().st_size > 1000
    with h5py.File(out) as file:
        assert file["dataset/image_1/data"].shape[-2:] == (32, 32)


def test_output_after_the_reader_has_gone_is_discarded():
    reader, writer = os.pipe()
    text = io.TextIOWrapper(io.BufferedWriter(_RobustFile(writer, "w")))
    print("read", file=text, flush=True)
    assert os.read(reader, 100) == b"read\n"
    os.close(reader)
    for _ in range(2):
        print("dropped", file=text, flush=True)
    os.write(writer, b"by a library")  # it fails no more either
    text.close()


def test_a_stream_needs_its_standard_output(run, monkeypatch):
    monkeypatch.setattr(sys, "__stdout__", None)
    code, _, output = run("stream")
    assert code == 2
    assert "standard output is closed: expected a pipe or a file for images" in output
