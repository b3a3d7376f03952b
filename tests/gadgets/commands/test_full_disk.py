"""A disk that fills up, as a limit on the size of files shows it."""

import re

import nibabel
import numpy as np
import pytest
import torch
from forked import run_forked

from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan

pytest.importorskip("resource")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    full = SimulatedScan(matrix=(96, 96), coils=8, repetitions=12)
    write_scan(path, full.header, full)
    return path


def assert_refused(limit, named, *command):
    done = run_forked(*command, limit=limit)
    message = done.stderr.decode()
    assert done.returncode == 2, (done.returncode, message)
    last = message.splitlines()[-1]
    assert re.fullmatch(f"scoremri: {named}: cannot be written: File too large", last), last
    assert "Traceback" not in message


@pytest.mark.parametrize("limit", [0, 3_000, 1_100_000, 2_000_000])
def test_scans(scan, tmp_path, limit):
    out = tmp_path / "out.h5"
    assert_refused(limit, out, "undersample", scan, "-o", out, "-R", 2)
    assert_refused(limit, out, "simulate", "-o", out, "--matrix", 96, "--slices", 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 3_000, 1_100_000, 1_300_000])
def test_replay(scan, tmp_path, limit):
    out = tmp_path / "out.h5"
    assert_refused(limit, out, "replay", scan, "-o", out, "-p", "sampler=none")
    assert list(tmp_path.iterdir()) == []


def test_demo(tmp_path):
    assert_refused(100_000, tmp_path / "scan.h5", "demo", "-o", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "name"), [("--json", "t.json.rows"), ("--picture", "p.png")])
def test_evaluate(scan, tmp_path, option, name):
    out = tmp_path / name  # the rows are kept before the table is written
    quick = ("-R", 3, "--calibration", 12, "--slices", 1, "-p", "sampler=none")
    assert_refused(
        100,
        out,
        "evaluate",
        scan,
        *quick,
        option,
        out.with_suffix("") if name.endswith(".rows") else out,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "named"), [(5_000, r"cache/\w+\.npz"), (100_000, r"checkpoint\.pt")]
)
def test_train(tmp_path, limit, named):
    for name in ("one", "two"):
        volume = np.random.default_rng(0).uniform(50, 100, (40, 40, 4)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
    run = tmp_path / "run"
    small = ("--batch", 2, "--patch", 32, "--channels", "8,8", "--blocks", "1,1", "--steps", 1)
    assert_refused(limit, f"{run}/{named}", "train", "--data", tmp_path, "-o", run, *small)
    assert [path.name for path in run.iterdir()] == ["cache"]
    assert not list(run.rglob(".*"))


def test_import_prior(tmp_path):
    checkpoint, out = tmp_path / "checkpoint.pth", tmp_path / "new.safetensors"
    torch.save([NCSNv2("deepest", 2, 2, 4).state_dict()], checkpoint)
    assert_refused(5_000, out, "import-prior", checkpoint, "-o", out)
    assert list(tmp_path.iterdir()) == [checkpoint]
