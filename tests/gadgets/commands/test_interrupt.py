"""Ctrl-C, SIGTERM and SIGHUP, sent to a command in a separate process."""

import os
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from gadgets.commands import main
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan

WAIT = 60  # seconds; a machine may be busy
PROGRAM = """
import sys
from gadgets.program import main
print("started", file=sys.stderr, flush=True)
main()
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    full = SimulatedScan(matrix=(96, 96), coils=4, slices=3)
    write_scan(path, full.header, full)
    return path


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
WORDS = {INT: "interrupted", TERM: "terminated", HUP: "hung up"}


def heed():
    """Ignore no signal: what started the tests may, as a shell makes its background do."""
    for number in WORDS:
        signal.signal(number, signal.SIG_DFL)


class Process:
    """A command in a separate process, with stderr in a file."""

    def __init__(self, log, *command):
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *map(str, command)],
                stdout=subprocess.DEVNULL,
                stderr=file,
                preexec_fn=heed,
            )
        self.wait_for(lambda: "started" in self.output())

    def output(self):
        return self._log.read_text()

    def wait_for(self, happened):
        end = time.monotonic() + WAIT
        while not happened():
            assert self._process.poll() is None, self.output()
            assert time.monotonic() < end
            time.sleep(0.01)

    def assert_ended_by(self, number):
        assert self._process.poll() is None, self.output()
        before = len(self.output())
        self._process.send_signal(number)
        try:
            code = self._process.wait(WAIT)
        finally:
            self._process.kill()
        # the current computation may still be logged
        last = [line for line in self.output()[before:].splitlines() if " INFO " not in line]
        assert (code, last) == (128 + number, [f"scoremri: {WORDS[number]}"])


@pytest.fixture
def start(tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "stderr"
    return lambda *command: Process(log, *command)


# seconds after the output was begun: torch is being loaded, coil maps estimated, samples drawn
@pytest.mark.parametrize(("seconds", "number"), [(0.5, INT), (4, TERM)])
def test_replay_while_it_loads_and_samples(start, scan, tmp_path, seconds, number):
    process = start("replay", scan, "-o", tmp_path / "out.h5", "-p", "samples=64")
    process.wait_for(lambda: list(tmp_path.iterdir()))
    time.sleep(seconds)
    process.assert_ended_by(number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [INT, TERM])
def test_replay_while_images_are_received(start, scan, tmp_path, number):
    many = tmp_path / "many.h5"
    full = SimulatedScan(matrix=(64, 64), coils=4, repetitions=40)
    write_scan(many, full.header, full)
    process = start("replay", many, "-o", tmp_path / "out.h5", "-p", "sampler=none")
    process.wait_for(lambda: "frame 2 " in process.output())
    process.assert_ended_by(number)
    assert list(tmp_path.iterdir()) == [many]


@pytest.mark.parametrize(("seconds", "number"), [(3, HUP)])
def test_demo(start, tmp_path, seconds, number):
    process = start("demo", "-o", tmp_path / "demo")
    process.wait_for(lambda: list(tmp_path.glob("demo/.out*")))
    time.sleep(seconds)
    process.assert_ended_by(number)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["scan.h5"]


@pytest.mark.parametrize(("seconds", "number"), [(1.5, TERM)])
def test_evaluate(start, scan, tmp_path, seconds, number):
    process = start("evaluate", scan, "--samples", 64, "-o", tmp_path / "table.json")
    time.sleep(seconds)
    process.assert_ended_by(number)
    assert {path.name for path in tmp_path.iterdir()} <= {"table.json"}


@pytest.mark.parametrize(("seconds", "number"), [(0.5, TERM)])
def test_train_keeps_its_checkpoint(start, tmp_path, seconds, number):
    for split in ("one", "two"):
        volume = np.random.default_rng(0).uniform(50, 100, (40, 40, 4)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{split}.nii.gz")
    run = tmp_path / "run"
    small = ("--batch", 2, "--patch", 32, "--channels", "8,8", "--blocks", "1,1")
    process = start(
        *("train", "--data", tmp_path, "-o", run, "--checkpoint-every", 5, *small),
        *("--cache", tmp_path / "cache", "--steps", 100_000),
    )
    process.wait_for((run / "checkpoint.pt").exists)
    time.sleep(seconds)
    process.assert_ended_by(number)
    assert {path.name for path in run.iterdir()} <= {"checkpoint.pt", "log.jsonl", "denoised.png"}


ENTRIES = (
    [sys.executable, "-m", "scoremri_core"],
    [sys.executable, "-c", "from gadgets.program import main; main()"],
)


@pytest.mark.parametrize(("seconds", "number"), [(0.05, TERM), (0.2, INT)])
def test_interrupt_during_import(tmp_path, seconds, number):
    """During the import of the command line, as -X importtime logs it."""
    process = subprocess.Popen(
        [*ENTRIES[seconds > 0.1], "demo", "-o", tmp_path / "demo"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
        preexec_fn=heed,
    )
    try:
        begun = False
        for line in process.stderr:
            if begun:  # what it imports itself
                break
            begun = "gadgets.program" in line
        time.sleep(seconds)
        process.send_signal(number)
        output = process.communicate(timeout=WAIT)[1]
    finally:
        process.kill()
    message = [line for line in output.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, message) == (128 + number, [f"scoremri: {WORDS[number]}"])


# as modules of pybind11 do
WRAPPED = """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt as error:
    raise ImportError("initialization failed") from error
"""
DROPPED = """
class Dropped:
    def __del__(self):  # Python drops what is raised here
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
Dropped()
time.sleep(60)
"""
# systemd sends both, and so may a terminal that is closed
TWICE = """
try:
    signal.raise_signal(signal.SIGINT)
finally:
    signal.raise_signal(signal.SIGHUP)
    print("cleaned", file=sys.stderr)
"""


@pytest.mark.parametrize(("work", "output"), [(WRAPPED, ""), (DROPPED, ""), (TWICE, "cleaned\n")])
def test_signal_is_reported_once(work, output):
    program = f"""
import signal, sys, time
from gadgets import commands, program

def work(**_):
    exec({work!r}, globals())

commands.command_line = lambda: work
program.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=heed, timeout=50
    )
    assert (ended.returncode, ended.stderr) == (130, f"{output}scoremri: interrupted\n")


def test_ignored_signals_stay_ignored():
    """As under nohup."""
    program = """
import signal
from gadgets import commands, program
commands.command_line = lambda: lambda **_: signal.raise_signal(signal.SIGHUP)
program.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        timeout=50,
    )
    assert ended.returncode == 0


def test_an_import_error_is_not_an_interrupt(monkeypatch):
    def work(**_):
        raise ImportError("initialization failed") from ValueError()

    monkeypatch.setattr("gadgets.commands.command_line", lambda: work)
    with pytest.raises(ImportError):
        main([])
