"""What is there stays as it is without --overwrite, and what is no file even with it."""

import os

import nibabel
import numpy as np
import pytest

from gadgets.commands import COMMANDS
from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan

SCAN = ("scan.h5", "-o", "there.h5", "-p", "sampler=none")
TRAIN = ("train", "--data", "volumes", "-o", ".", "--device", "cpu")
CASES = [  # the file that is there, and what would replace it
    ("there.h5", "replay", *SCAN),
    ("page.html", "replay", "scan.h5", "-o", "new.h5", "--report", "page.html"),
    ("new_mean.nii.gz", "replay", "scan.h5", "-o", "new.h5", "--format", "h5,nifti"),
    ("new_dicom", "replay", "scan.h5", "-o", "new.h5", "--format", "dicom"),
    ("page.html", "report", "scan.h5", "-o", "page.html"),
    ("there.h5", "convert", "scan.h5", "there.h5"),
    ("there.hdr", "convert", "scan.h5", "there.cfl"),
    ("there.json", "convert", "scan.h5", "there.npy"),
    ("there.h5", "simulate", "-o", "there.h5"),
    ("there.h5", "undersample", "scan.h5", "-o", "there.h5"),
    ("table.json", "evaluate", "scan.h5", "-o", "table.json", "--picture", "new.png"),
    ("worst.png", "evaluate", "scan.h5", "-o", "new.json", "--picture", "worst.png"),
    ("table.json", "validate", "--quick", "-o", "table.json"),
    ("table.json", "benchmark", "--quick", "-o", "table.json"),
    ("scaling.png", "benchmark", "--quick", "--scaling"),
    ("table.png", "benchmark", "--quick", "--scaling", "-o", "table.json"),
    ("mine.safetensors", "import-prior", "scan.h5", "-o", "mine"),
    ("mine.json", "import-prior", "scan.h5", "-o", "mine.safetensors"),
    ("mine.safetensors", "adapt", "--data", "volumes", "-o", "mine"),
    ("mine.json", "adapt", "--data", "volumes", "-o", "mine.safetensors"),
    ("site.json", "guarantee", "--data", "scan.h5", "-o", "site.json"),
    ("module.pt", "export", "default", "-o", "module.pt"),
    ("scan.h5", "demo", "-o", "."),
    ("demo.png", "demo", "-o", "demo"),
    ("mine.safetensors", *TRAIN, "--name", "mine"),
    ("mine.json", "measure", "scan.h5", "--data", "volumes", "--name", "mine"),
    ("build.sh", "openrecon", "-o", "."),
]
# without an output file, or resuming in a folder
OTHERS = {"stream", "serve", "check", "compare"}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    full = SimulatedScan(matrix=(24, 20), coils=2)
    write_scan(path, full.header, full)
    return path.read_bytes()


@pytest.fixture
def folder(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.h5").write_bytes(scan)
    return tmp_path


def test_every_command_is_covered():
    assert {case[1] for case in CASES} | OTHERS == set(COMMANDS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]} {case[0]}")
def test_an_existing_file_is_kept(run, folder, case):
    name, *command = case
    there = folder / name
    if command[-1] == "demo":
        there = folder / "demo" / name
        there.parent.mkdir()
    if name != "scan.h5":
        there.write_text("of yesterday")
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, out, message = run(*command)
    assert (code, out) == (2, "")
    shown = str(there.relative_to(folder))
    assert message == f"scoremri: {shown}: already exists; --overwrite replaces it\n"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept


@pytest.mark.parametrize(
    "command",
    [
        ("replay", *SCAN),
        ("simulate", "-o", "there.h5", "--matrix", 24, "--coils", 2),
        ("undersample", "scan.h5", "-o", "there.h5", "-R", 2, "--calibration", 8),
    ],
    ids=lambda command: command[0],
)
def test_a_file_is_replaced_with_overwrite(run, folder, command):
    (folder / "there.h5").write_text("of yesterday")
    assert run(*command, "--overwrite")[0] == 0
    assert (folder / "there.h5").read_bytes().startswith(b"\x89HDF")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]} {case[0]}")
def test_a_pipe_is_kept(run, folder, case):
    """As a device is, which --overwrite would replace where the user is root."""
    name, *command = case
    there = folder / ("demo" if command[-1] == "demo" else ".") / name
    if name == "scan.h5":
        (folder / "scan.h5").unlink()
    there.parent.mkdir(exist_ok=True)
    os.mkfifo(there)
    before = set(folder.rglob("*"))
    code, out, message = run(*command, "--overwrite")
    assert (code, out) == (2, "")
    shown = there.relative_to(folder)
    expected = {
        "new_dicom": "not a folder, expected one to replace",
        "scan.h5": "a pipe, expected a file",
    }
    assert message.startswith(f"scoremri: {shown}: {expected.get(name, 'a pipe, expected a file')}")
    assert there.is_fifo()
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["out.h5", "page.html"])
def test_links_are_followed(run, folder, name):
    (folder / "elsewhere").mkdir()
    target, link = folder / "elsewhere" / name, folder / name
    link.symlink_to(target)  # which is new
    command = ("replay", *SCAN[:2], "out.h5", *SCAN[3:], "--report", "page.html", "--overwrite")
    for content in ("", "of yesterday"):
        if content:
            target.write_text(content)
        assert run(*command)[0] == 0
        assert link.is_symlink()
        assert target.stat().st_size > 1000
    assert sorted(path.name for path in (folder / "elsewhere").iterdir()) == [name]


def test_an_array_and_its_side_car_are_written_through_links(run, folder):
    for name in ("array.cfl", "array.hdr", "array.json"):
        (folder / name).symlink_to(f"real_{name}")
        (folder / f"real_{name}").touch()
    assert run("convert", "scan.h5", "array.cfl", "--overwrite")[0] == 0
    for name in ("array.cfl", "array.hdr", "array.json"):
        assert (folder / name).is_symlink()
        assert (folder / f"real_{name}").stat().st_size > 0


def test_a_circular_link_is_refused(run, folder):
    (folder / "there.h5").symlink_to("there.h5")
    code, _, message = run("simulate", "-o", "there.h5", "--overwrite")
    assert (code, message) == (2, "scoremri: there.h5: a circular link\n")


def test_a_report_never_replaces_its_images(run, folder):
    """Where neither is there yet."""
    (folder / "link.h5").symlink_to("new.h5")
    code, _, message = run("replay", *SCAN[:2], "new.h5", "--report", "link.h5", "--overwrite")
    assert (code, message) == (2, "scoremri: link.h5: the output would replace the input\n")


LONG = "x" * 300
TOO_LONG = [
    ("replay", *SCAN[:2], f"{LONG}.h5"),
    ("replay", *SCAN[:2], "new.h5", "--report", f"{LONG}.html"),
    ("replay", *SCAN[:2], f"{LONG[:240]}.h5", "--format", "nifti"),  # as {LONG[:240]}_mean.nii.gz
    ("replay", *SCAN[:2], f"{LONG[:250]}.h5", "--format", "dicom"),
    ("report", "scan.h5", "-o", f"{LONG}.html"),
    ("convert", "scan.h5", f"{LONG[:251]}.cfl"),  # as {LONG[:251]}.json
    ("simulate", "-o", f"{LONG}.h5"),
    ("undersample", "scan.h5", "-o", f"{LONG}.h5"),
    ("evaluate", "scan.h5", "-o", f"{LONG}.json"),
    ("validate", "--quick", "-o", f"{LONG}.json"),
    ("benchmark", "--quick", "-o", f"{LONG}.json"),
    ("import-prior", "scan.h5", "-o", f"new/{LONG}"),
    ("export", "default", "-o", f"{LONG}.pt"),
    ("demo", "-o", LONG),
    ("compare", "--data", "volumes", "-o", f"new/{LONG}"),
    (*TRAIN, "--name", LONG),
    ("train", "--data", "volumes", "-o", LONG),
    ("measure", "scan.h5", "--data", "volumes", "--name", LONG),
    ("openrecon", "-o", "new", "--vendor", LONG),
    ("simulate", "-o", f"{'new/../' * 600}new.h5"),  # longer than a path may be
]


@pytest.mark.parametrize("command", TOO_LONG, ids=lambda command: command[0])
def test_too_long_names_are_refused_before_the_computation(run, folder, command):
    code, out, message = run(*command)
    assert (code, out) == (2, "")
    assert message.endswith(": the name is too long for the file system\n")
    assert [path.name for path in folder.iterdir()] == ["scan.h5"]


def test_the_root_folder_is_refused(run, folder):
    assert run("simulate", "-o", "/")[2] == "scoremri: /: a folder, expected a file to write\n"


def test_the_longest_valid_names_are_accepted(run, folder):
    name = "x" * (os.pathconf(folder, "PC_NAME_MAX") - 3) + ".h5"
    assert run("simulate", "-o", name, "--matrix", 24, "--coils", 2)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["scan.h5", name]


def test_a_dangling_link_is_kept(run, folder):
    (folder / "there.h5").symlink_to("elsewhere.h5")
    assert run("simulate", "-o", "there.h5")[0] == 2
    assert (folder / "there.h5").is_symlink()


def test_an_array_never_replaces_the_side_car_of_its_source(run, folder):
    """Even with --overwrite: the source could not be read any more."""
    assert run("convert", "scan.h5", "array.npy")[0] == 0
    before = (folder / "array.json").read_bytes()
    code, _, message = run("convert", "array.npy", "array.cfl", "--overwrite")
    assert code == 2
    assert message == "scoremri: array.json: the output would replace the input\n"
    assert (folder / "array.json").read_bytes() == before
    assert run("convert", "array.npy", "array.h5")[0] == 0  # which needs none


def test_files_are_kept_from_python(folder):
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(2, 16, 16)) + 0j).astype(np.complex64)
    result = reconstruct(kspace, sampler="none")
    (folder / "mean.nii").write_text("of yesterday")
    with pytest.raises(InputError, match=r"mean\.nii: .*; overwrite=True replaces it"):
        result.to_nifti("mean.nii")
    assert (folder / "mean.nii").read_text() == "of yesterday"
    result.to_nifti("mean.nii", overwrite=True)
    assert nibabel.load("mean.nii").shape == (16, 16, 1)
