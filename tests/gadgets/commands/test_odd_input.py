"""Input that no command can work with: one sentence that names it, exit code 2, nothing left."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from gadgets.commands import COMMANDS
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan

# how each command takes a file, and where it writes
TAKES = {
    "replay": ("{file}", "-o", "new.h5"),
    "report": ("{file}", "-o", "new.html"),
    "undersample": ("{file}", "-o", "new.h5"),
    "convert": ("{file}", "new.h5"),
    "evaluate": ("{file}", "-R", "2", "-p", "sampler=none", "-o", "new.json"),
    "benchmark": ("--quick", "--data", "{file}", "-o", "new.json"),
    "import-prior": ("{file}", "-o", "new.safetensors"),
    "measure": ("{file}", "--data", "volumes.csv"),
    "train": ("--data", "{file}", "--data", "volumes.csv", "-o", "new"),
    "compare": ("--data", "volumes.csv", "--scans", "{file}", "--preset", "smoke", "-o", "new"),
}
WRITES = {
    "demo": ("-o", "{out}"),
    "replay": ("full.h5", "-o", "{out}"),
    "simulate": ("-o", "{out}"),
    "undersample": ("full.h5", "-o", "{out}"),
    "convert": ("full.h5", "{out}"),
    "evaluate": ("full.h5", "-o", "{out}"),
    "validate": ("-o", "{out}"),
    "benchmark": ("--quick", "-o", "{out}"),
    "import-prior": ("full.h5", "-o", "{out}"),
    "export": ("default", "-o", "{out}"),
    "train": ("--data", "volumes.csv", "-o", "{out}"),
    "compare": ("--data", "volumes.csv", "--preset", "smoke", "-o", "{out}"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A full scan, and volumes to train on."""
    files = tmp_path_factory.mktemp("files")
    scan = SimulatedScan(matrix=(32, 32), coils=2)
    write_scan(files / "full.h5", scan.header, scan)
    image = np.random.default_rng(0).uniform(50, 100, (2, 40, 40))
    for split in ("train", "val"):
        with h5py.File(files / f"{split}.h5", "w") as file:
            file["image"] = image
    (files / "volumes.csv").write_text("file,subject,split\ntrain.h5,a,train\nval.h5,b,val\n")
    return files


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """The working directory, with these files."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def absent(path):
    return "no such file"


def folder_in_its_place(path):
    path.mkdir()
    return "a folder, expected a file|no scans|no volumes"


def empty(path):
    path.touch()
    return NO_HDF5


def text(path):
    path.write_text("hello\n")
    return NO_HDF5


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["numbers"] = np.zeros(3)
    return "no group 'dataset'|written by torch.save|not a checkpoint|expected a dataset 'image'"


def cut_off(path):
    path.write_bytes(Path("full.h5").read_bytes()[:20_000])
    return NO_HDF5


def closed(path):
    if os.getuid() == 0:
        pytest.skip("nothing is closed to root")
    path.write_bytes(Path("full.h5").read_bytes())
    path.chmod(0)
    return "no permission"


NO_HDF5 = "not readable as HDF5|written by torch.save|not a checkpoint"


def refused(run, *arguments):
    """The one sentence."""
    before = sorted(Path().rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    lines = [line for line in err.splitlines() if " INFO " not in line]
    assert len(lines) == 1, lines
    left = {path for path in Path().rglob("*") if "cache" not in str(path)} - set(before)
    assert left <= {Path("new")}  # a folder that is filled at the end
    return lines[0]


@pytest.mark.parametrize(
    "make", [absent, folder_in_its_place, empty, text, other_hdf5, cut_off, closed]
)
@pytest.mark.parametrize("command", TAKES)
def test_files_that_are_not_files(run, folder, command, make):
    message = make(folder / "odd.h5")
    sentence = refused(run, command, *(part.format(file="odd.h5") for part in TAKES[command]))
    assert sentence.startswith("scoremri: odd.h5: ")
    assert any(words in sentence for words in message.split("|")), sentence


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("place", ["full.h5/new.h5", "nowhere/new.h5", "taken"])
def test_unwritable_outputs(run, folder, monkeypatch, command, place):
    def work(*_, **__):
        raise AssertionError("nothing is to be computed")

    for name in ("simulation.simulation.SimulatedScan", "scans.files.open_hdf5"):
        monkeypatch.setattr(f"scoremri_core.{name}", work)
    Path("taken").mkdir()
    makes_folders = command in ("compare", "demo", "train", "import-prior")
    if makes_folders and place != "full.h5/new.h5":
        pytest.skip("it makes the folder")
    sentence = refused(run, command, *(part.format(out=place) for part in WRITES[command]))
    assert Path(place).parts[0] in sentence


@pytest.mark.parametrize("command", ["replay", "undersample", "evaluate"])
@pytest.mark.parametrize("group", ["other", "dataset/data", ""])
def test_missing_groups(run, folder, command, group):
    arguments = (part.format(file="full.h5") for part in TAKES[command])
    sentence = refused(run, command, *arguments, "--group", group)
    assert f"full.h5: no group '{group}' (groups of this file: dataset)" in sentence


@pytest.mark.parametrize("command", ["replay", "undersample", "evaluate"])
def test_the_result_never_replaces_its_source(run, folder, command):
    sentence = refused(run, command, "full.h5", "-o", "full.h5")
    assert sentence == "scoremri: full.h5: the output would replace the input"


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("demo", "--seed", "-1"),
        ("serve", "--port", "-1"),
        ("serve", "--stall", "0"),
        ("simulate", "--matrix", "0"),
        ("simulate", "--matrix", "-8"),
        *(("simulate", option, value) for value in ("0", "-1") for option in (
            "--coils", "--slices", "--partitions", "--repetitions", "--phases", "--sets",
            "--averages", "--segments", "--oversampling", "--phase-oversampling", "--fov",
            "--recon-matrix", "--snr", "-R", "--partial-fourier", "--partial-echo",
        )),
        ("simulate", "--snr", "nan"),
        *((command, option, value)
          for command in ("simulate", "undersample", "benchmark")
          for option, value in (("-R", "nan"), ("-R", "inf"), ("-R", "-2"), ("--calibration", "-1"),
                                ("--calibration", "9999"), ("--seed", "-1"))),
        *(("evaluate", option, value) for option, value in (
            ("-R", "0"), ("-R", "nan"), ("-R", "inf"), ("--calibration", "-1"), ("--slices", "0"),
            ("--slice", "-1"), ("--samples", "0"), ("--steps", "0"), ("--seed", "-1"),
            ("-p", "colour=1"), ("--group", "none"), ("--calibration", "9999"),
        )),
        *(("benchmark", option, value) for option, value in (
            ("--size", "0"), ("--coils", "-1"), ("--samples", "0"), ("--steps", "0"),
            ("--threads", "0"), ("--repetitions", "0"), ("--frames", "0"), ("--espirit", "0x8x8"),
            ("--langevin-levels", "0"), ("--prior", "none"),
        )),
        ("validate", "--seed", "-1"),
        ("validate", "--device", "abacus"),
        *(("train", option, value) for option, value in (
            ("--steps", "0"), ("--batch", "0"), ("--patch", "0"), ("--patch", "33"),
            ("--learning-rate", "0"), ("--learning-rate", "inf"), ("--channels", "0,8"),
            ("--channels", "a"), ("--blocks", "-1"), ("--signed-sd", "-1"), ("--seed", "-1"),
            ("--checkpoint-every", "0"), ("--device", "abacus"), ("--start", "none"),
            ("--name", "a/b"), ("--loss", "none"), ("--architecture", "none"),
        )),
        *(("replay", "-p", pair) for pair in (
            "samples=0", "samples=-1", "steps=0", "seed=-1", "maps=3", "noise=0", "noise=-1",
            "coils=-1", "series=-1", "outputs=", "sampler=none2", "device=abacus", "colour=1",
        )),
        ("replay", "--address", "host:99999"),
    ],
)  # fmt: skip
def test_values_out_of_range(run, folder, command, option, value):
    usual = {
        "simulate": ("-o", "new.h5", "-R", "2", "--calibration", "8", "--matrix", "32"),
        "serve": (),
        "demo": ("-o", "new"),
        "validate": ("--quick",),
        "benchmark": ("--quick", "-o", "new.json"),
    }
    takes = usual.get(command) or TAKES.get(command, ())
    file = "volumes.csv" if command == "train" else "full.h5"
    sentence = refused(run, command, *(part.format(file=file) for part in takes), option, value)
    name = value.split("=")[0] if option == "-p" else option.strip("-").replace("-", " ")
    called = {"size": "matrix", "espirit": "matrix", "start": "prior", "R": "acceleration"}
    words = sentence.replace("-", " ").replace("_", " ")
    assert name in words or called.get(name, name) in words, sentence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("benchmark", "--quick", "--data", "full.h5", "--size", "64"), "not allowed with --data"),
        (("benchmark", "--quick", "--data", "full.h5", "--coils", "4"), "not allowed with --data"),
        (("benchmark", "--quick", "--slice", "0"), "--slice needs --data"),
        (
            ("evaluate", "full.h5", "--data", "full.h5", "--slice", "0"),
            "slice: not allowed",
        ),
        (
            ("simulate", "-o", "new.h5", "--calibration-mode", "separate"),
            "only for an undersampled",
        ),
        (("simulate", "-o", "new.h5", "-R", "2", "--calibration-last"), "calibration last: exp"),
        (("undersample", "full.h5", "-o", "new.h5", "--calibration-last"), "calibration last: exp"),
    ],
)
def test_options_without_effect_are_refused(run, folder, arguments, message):
    assert message in refused(run, *arguments)


def test_every_command_is_tested_here():
    elsewhere = {
        "serve",
        "check",
        "stream",
        "openrecon",
        "adapt",
        "guarantee",
    }  # theirs is tested with the rest of them
    assert {*TAKES, *WRITES, *elsewhere} == set(COMMANDS)
