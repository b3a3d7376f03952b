"""Progress: a bar on a terminal that log lines do not tear, log lines elsewhere."""

import logging
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from gadgets.commands.progress import progress
from gadgets.commands.replay import ReplayProgress, frames
from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate


def on_a_terminal(*command):
    """What a command writes to a terminal, without the codes that move the cursor: its lines."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scoremri_core", *map(str, command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "300", "TERM": "xterm"},
    )
    os.close(theirs)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(65536):
                written += part
        except OSError:  # the other end is closed
            pass
    assert process.wait() == 0, written
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_a_replay_shows_its_frames_and_whole_log_lines(tmp_path):
    scan = SimulatedScan(matrix=(32, 32), coils=3, slices=3)
    write_scan(tmp_path / "in.h5", scan.header, scan)
    lines = on_a_terminal(
        "replay", tmp_path / "in.h5", "-o", tmp_path / "out.h5", "-p", "sampler=none"
    )
    bars = [line for line in lines if "━" in line]
    assert bars
    assert all(
        re.fullmatch(r"\s*frames [━╸╺]+ [0-3]/3 0:\d\d:\d\d left \S+ .*", b) for b in bars
    ), bars
    lines_logged = [line for line in lines if "INFO" in line]
    assert sum("assembly" in line for line in lines_logged) == 3  # one line a frame, whole
    assert "3 images in dataset/image_1" in lines_logged[-1]
    assert not set(lines_logged) & set(bars)


def test_without_a_terminal_progress_is_logged(caplog, capsys):
    with caplog.at_level(logging.INFO), progress("frames", 4, every=0) as advance:
        advance(1, "so far")
        advance(2.5, "")
    with caplog.at_level(logging.INFO), progress("frames", None, every=3600) as advance:
        advance(1, "")
    reports = [record.getMessage().strip() for record in caplog.records]
    assert reports == ["frames: 1 of 4 after 0 s so far", "frames: 2.5 of 4 after 0 s"]
    assert capsys.readouterr().err == ""


def test_frames_are_counted_in_advance(tmp_path):
    scan = SimulatedScan(
        matrix=(16, 16), coils=2, slices=3, repetitions=2, averages=2, contrast="t1,t2"
    )
    for name, some in (("full", scan), ("thin", accelerate(scan, "equispaced", 2, 8))):
        write_scan(tmp_path / f"{name}.h5", some.header, some)
        with open_scan(tmp_path / f"{name}.h5") as stored:
            assert frames(stored.heads()) == 3 * 2 * 2


def test_sent_readouts_and_received_frames_are_reported():
    updates = []
    tracker = ReplayProgress(lambda done, note: updates.append((done, note)), readouts=2)
    series = [SimpleNamespace(image_series_index=number) for number in (4, 5, 4)]
    assert list(tracker.sending("ab")) == ["a", "b"]
    assert list(tracker.receiving(["text", *series])) == ["text", *series]
    assert updates == [(0, "1 of 2 readouts sent"), (0, ""), (1, ""), (2, "")]


def test_noise_levels_are_reported():
    updates = []
    tracker = ReplayProgress(lambda done, note: updates.append((done, note)), readouts=0)
    for level in (1, 2):
        tracker.level_sampled(4, SimpleNamespace(done=level / 2, level=level, levels=2))
    tracker.frame_reconstructed(None, None)
    list(tracker.receiving([SimpleNamespace(image_series_index=1)]))
    tracker.level_sampled(2, SimpleNamespace(done=0.25, level=1, levels=4))
    assert updates == [(2, "noise level 1 of 2"), (4, "noise level 2 of 2"), (4, ""),
                    (1.5, "noise level 1 of 4")]  # fmt: skip


def test_a_task_without_news_is_not_silent(caplog):
    with caplog.at_level(logging.INFO), progress("waiting", 3, every=0.1):
        time.sleep(1.2)
    assert "waiting: 0 of 3 after" in caplog.text
