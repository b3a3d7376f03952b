import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from scoremri_core.priors import load_prior
from scoremri_core.priors.storage import save_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate


def image(seed):
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.uniform(0.2, 1, (9, 9)), np.ones((8, 8)))
    return (blocks * np.exp(1j * rng.uniform(0, 6))).astype(np.complex64)


def write_dicom(path, patient, pixels):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = MRImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.PatientID, found.ImageType = patient, ["ORIGINAL", "PRIMARY", "M"]
    found.Rows, found.Columns = pixels.shape
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelRepresentation = 15, 0
    found.PixelData = pixels.astype(np.uint16).tobytes()
    found.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images of three subjects in HDF5 and DICOM, and a small prior."""
    folder = tmp_path_factory.mktemp("site")
    for kind in ("hdf5", "dicom", "accelerated"):
        (folder / kind).mkdir()
    for seed in range(3):
        with h5py.File(folder / "hdf5" / f"{seed}.h5", "w") as file:
            file["image"] = np.stack([image(seed), image(seed + 10)])
        for number in range(2):
            pixels = 1000 * np.abs(image(seed + 10 * number))
            write_dicom(folder / "dicom" / f"IM{seed}{number}", f"patient {seed}", pixels)
    for seed in range(2):
        scan = accelerate(SimulatedScan((64, 64), 4, seed=seed), "equispaced", 2, 24)
        write_scan(folder / "accelerated" / f"{seed}.h5", scan.header, scan)
    torch.manual_seed(0)
    save_prior(folder / "start.safetensors", DenoisingUnet((16, 16), (1, 1)), {})
    return folder


@pytest.mark.parametrize("kind", ["hdf5", "dicom", "accelerated"])
def test_adapt(run, files, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(files)
    options = ["--undersampled"] if kind == "accelerated" else []
    code, out, err = run(
        "adapt", "--data", kind, "-o", tmp_path / "mine", "--from", "start.safetensors",
        "--minutes", 0.05, "--no-measure", "--device", "cpu", *options,
    )  # fmt: skip
    assert (code, out) == (0, ""), err
    assert "on held-back subjects -" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]
    card = json.loads((tmp_path / "mine.json").read_text())
    before, after = card["adaptation"]["held_back_error"]
    assert after < 0.99 * before
    subjects = {entry["subject"] for entry in card["training_data"]}
    assert len(subjects) == (1 if kind == "accelerated" else 2)
    load_prior(tmp_path / "mine.safetensors")


def cut(path):
    shutil.copytree("hdf5", path)
    Path(path, "0.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))


def empty_images(path):
    Path(path).mkdir()
    for name in "ab":
        with h5py.File(f"{path}/{name}.h5", "w") as file:
            file["image"] = np.zeros((2, 64, 64))


def one_subject(path):
    Path(path).mkdir()
    shutil.copy("hdf5/0.h5", path)


def colour(path):
    Path(path).mkdir()
    for name in "ab":
        with h5py.File(f"{path}/{name}.h5", "w") as file:
            file["image"] = np.ones((2, 64, 64, 3))


def of_patients(path):
    """Pixels that are missing."""
    shutil.copytree("dicom", path)
    for file in Path(path).iterdir():
        file.write_bytes(file.read_bytes()[:500])


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda path: None, [], "odd: no such file or folder"),
        (lambda path: Path(path).mkdir(), [], "odd: no volumes: expected"),
        (lambda path: Path(path).write_text("hello"), [], "odd: expected a .nii"),
        (cut, [], "not readable as HDF5"),
        (empty_images, [], "all slices are empty"),
        (one_subject, [], "no file of split 'val'"),
        (colour, [], "expected complex numbers or magnitudes"),
        (of_patients, [], "DICOM"),
        (lambda path: shutil.copytree("accelerated", path), [], "fully sampled"),
        (lambda path: shutil.copytree("hdf5", path), ["--undersampled"], ".h5: no group"),
        (lambda path: shutil.copytree("hdf5", path), ["--from", "none"], "prior 'none'"),
        (lambda path: shutil.copytree("hdf5", path), ["--from", "ncsnv2"], "architecture unet"),
        (lambda path: shutil.copytree("hdf5", path), ["-o", "start"], "start.safetensors"),
    ],
)
def test_unusable_input(run, files, tmp_path, monkeypatch, make, options, words):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    make("odd")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("adapt", "--data", "odd", "-o", "new", *options)
    lines = [line for line in err.splitlines() if " INFO " not in line]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert words in lines[0], lines[0]
    assert {p for p in tmp_path.rglob("*") if "new-run" not in str(p)} == set(before)
