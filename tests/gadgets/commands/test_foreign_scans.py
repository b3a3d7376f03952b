"""Files of other formats through the commands: what comes out is what their ISMRMRD twin gives."""

import json
import re
import struct

import h5py
import nibabel
import numpy as np
import pytest
from ismrmrd import xsd

from scoremri_core.mri import classical
from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.training import card, loop

SCAN = SimulatedScan((36, 32), coils=3)
TWIX = "siemens_twix_gre.dat"
ALIKE = ("scan.hdr", "scan", "scan.npz")  # other names, or other covers, of the same arrays
NAMES = ("scan.cfl", "scan.npy", "fastmri.h5", TWIX)
CLASSICAL = ("-p", "sampler=none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One scan in each format, without noise scan and oversampling, which arrays do not have."""
    from gadgets.commands import main

    folder = tmp_path_factory.mktemp("formats")
    write_scan(folder / "whole.h5", SCAN.header, SCAN)
    # the second side-car takes the place of the first, and fits both
    for source, name in (("whole.h5", "scan.cfl"), ("whole.h5", "scan.npy"), ("scan.cfl", "twin")):
        name = "twin.h5" if name == "twin" else name
        with pytest.raises(SystemExit) as end:
            main(["convert", f"{folder}/{source}", f"{folder}/{name}", "--overwrite"])
        assert end.value.code == 0
    kspace = np.load(folder / "scan.npy")
    np.savez(folder / "scan.npz", kspace=kspace)
    header = SimulatedScan((36, 32), coils=3, oversampling=1).header
    with h5py.File(folder / "fastmri.h5", "w") as file:
        file["kspace"] = kspace.swapaxes(2, 3)  # (slice, coil, readout, phase)
        file["ismrmrd_header"] = xsd.ToXML(header)
    return folder


@pytest.fixture(params=NAMES)
def both(request, folder, run):
    """A file and its twin."""
    if request.param != TWIX:
        return folder / request.param, folder / "twin.h5"
    pytest.importorskip("twixtools")
    path, twin = request.getfixturevalue("data_dir") / "raw" / TWIX, folder / f"{TWIX}.h5"
    assert twin.exists() or run("convert", path, twin)[0] == 0
    return path, twin


@pytest.fixture(scope="module")
def kept():
    """What a command makes of a twin, computed once."""
    return {}


def compared(both, kept, command):
    """What `command` makes of the file and of its twin."""
    path, twin = both
    key = (command.__qualname__, twin.name)
    if key not in kept:
        kept[key] = command(twin, "twin")
    return command(path, "original"), kept[key]


@pytest.mark.parametrize("name", [*ALIKE, "fastmri.h5"])
def test_the_twin_has_the_kspace_of_the_scan(folder, run, tmp_path, name):
    assert run("convert", folder / name, tmp_path / "twin.h5")[0] == 0
    with open_scan(tmp_path / "twin.h5") as twin:
        np.testing.assert_array_equal(zero_filled_kspace(twin), zero_filled_kspace(SCAN))


def test_replay(both, kept, run, tmp_path):
    def images(path, name):
        assert run("replay", path, "-o", tmp_path / f"{name}.h5", *CLASSICAL)[0] == 0
        with h5py.File(tmp_path / f"{name}.h5") as file:
            return file["dataset/image_1/data"][()]

    original, twins = compared(both, kept, images)
    assert original.max() > 0
    np.testing.assert_array_equal(original, twins)


def test_undersample(both, kept, run, tmp_path):
    def thinned(path, name):
        out = tmp_path / f"{name}.h5"
        assert run("undersample", path, "-o", out, "-R", 3, "--calibration", 12)[0] == 0
        with open_scan(out) as scan:
            encoding = scan.header.encoding[0]
            logged = (encoding.encodingLimits, encoding.parallelImaging)
            return scan.heads(), [acquisition.data for acquisition in scan], logged

    (heads, data, logged), (twins_heads, twins_data, twins_logged) = compared(both, kept, thinned)
    for name in ("idx", "flags", "number_of_samples", "center_sample"):
        np.testing.assert_array_equal(heads[name], twins_heads[name])
    assert logged == twins_logged
    for readout, twin in zip(data, twins_data, strict=True):
        np.testing.assert_array_equal(readout, twin)


def test_evaluate(both, kept, run, tmp_path, monkeypatch):
    monkeypatch.setattr(classical, "l1_wavelet", lambda kspace, *_, **__: kspace[0] * 0)  # slow

    def scores(path, name):
        asked = ("-R", 2, "--calibration", 12, "--slices", 1, *CLASSICAL)
        assert run("evaluate", path, *asked, "-o", tmp_path / f"{name}.json")[0] == 0
        (row,) = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
        assert not row["error"]
        return row["psnr"]

    original, twins = compared(both, kept, scores)
    assert original == twins
    assert original["CG-SENSE"] > 0


def test_train(both, kept, run, tmp_path, monkeypatch):
    """The slices that are prepared."""
    monkeypatch.setattr(loop, "train", lambda *_: None)
    monkeypatch.setattr(card, "write_prior", lambda *_: None)
    volume = np.random.default_rng(0).uniform(50, 100, (40, 40, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "val.nii.gz")

    def prepared(path, name):
        asked = ("-o", tmp_path / name, "--device", "cpu", "--patch", 32, "--no-measure")
        data = ("--data", path, "--data", tmp_path / "val.nii.gz")
        code, _, logged = run("train", *data, *asked)
        assert code == 0, logged
        stacks = [np.load(file)["stack0"] for file in (tmp_path / name / "cache").iterdir()]
        return next(stack for stack in stacks if np.iscomplexobj(stack))

    np.testing.assert_array_equal(*compared(both, kept, prepared))


NIFTI = struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0"
FOREIGN = [  # name, first bytes, error message
    ("a.dcm", b"\0" * 128 + b"DICM", "DICOM"),
    ("a.nii", NIFTI, "NIfTI"),
    ("P12345.7", b"\0" * 34 + b"GE_MED_NMR\0", "GE raw data .* ge_to_ismrmrd"),
    ("P12345.7", b"\0" * 64, "GE raw data .* ge_to_ismrmrd"),
    ("a.raw", b"\0" * 64, "Philips raw data .* philips_to_ismrmrd"),
]
COMMANDS = {
    "replay": ("{file}", "-o", "new.h5"),
    "undersample": ("{file}", "-o", "new.h5"),
    "evaluate": ("{file}", *CLASSICAL),
    "train": ("--data", "{file}", "-o", "new"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "beginning", "error"), FOREIGN)
def test_unsupported_formats_are_named(run, tmp_path, monkeypatch, command, name, beginning, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(beginning)
    code, out, err = run(command, *(part.format(file=name) for part in COMMANDS[command]))
    assert (code, out) == (2, "")
    if command == "train" and error in ("NIfTI", "DICOM"):
        error = "no file of split"  # it is read, and a second one expected
    assert re.search(f"^scoremri: ({name}: .*|data: .*)?({error})", err.splitlines()[-1]), err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_of_arrays_is_evaluated(folder, run, tmp_path, monkeypatch):
    """An array without a side-car is something else."""
    monkeypatch.setattr(classical, "l1_wavelet", lambda kspace, *_, **__: kspace[0] * 0)  # slow
    inside = tmp_path / "scans"
    inside.mkdir()
    for name in ("scan.npy", "scan.json", "scan.cfl", "scan.hdr"):
        (inside / name).write_bytes((folder / name).read_bytes())
    np.save(inside / "weights.npy", np.zeros(3))
    table = tmp_path / "table.json"
    asked = ("-R", 2, "--calibration", 12, "--mask", "equispaced", *CLASSICAL)
    code, _, logged = run("evaluate", "--data", inside, *asked, "-o", table)
    assert code == 0
    assert "skipped" not in logged
    rows = json.loads(table.read_text())["rows"]
    assert [row["scan"] for row in rows] == ["scan.cfl", "scan.npy"]
    assert rows[0]["psnr"] == rows[1]["psnr"]
