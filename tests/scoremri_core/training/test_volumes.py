"""What a prior is trained on: manifests and splits, readers of files, and the cache."""

import csv
import json
import os
import sys

import h5py
import nibabel
import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.scans.files import write_scan
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.training import slices as slices_module
from scoremri_core.training.augment import measured_patch, scanned_image, training_patch
from scoremri_core.training.manifest import Source, describe_data, find_sources, select_split
from scoremri_core.training.slices import load_slices
from scoremri_core.training.volumes import read_stacks


def save_nifti(path, volume, voxel=(1, 1, 1)):
    nibabel.save(nibabel.Nifti1Image(volume, np.diag((*voxel, 1))), path)
    return path


def noise_volume(shape=(40, 48, 56), seed=0):
    return np.random.default_rng(seed).uniform(50, 100, shape).astype(np.float32)


def write_manifest(folder, rows, columns="file,subject,contrast,slice_axis,split,licence"):
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two subjects: one for training, whose contrasts are on two axes, one for validation."""
    rows = []
    for name, axis, split in (("a", "2", "train"), ("b", "any", "train"), ("c", "0", "val")):
        save_nifti(tmp_path / f"{name}.nii.gz", noise_volume())
        rows.append([f"{name}.nii.gz", f"subject_{split}", "T1W", axis, split, "MIT"])
    return write_manifest(tmp_path, rows)


def test_slices_follow_the_manifest(folder):
    sources = find_sources([folder])
    slices = load_slices(select_split(sources, "train"))
    shapes = [s.image.shape for s in slices]
    assert shapes.count((40, 48)) == 56 + -(-56 // 3)  # axis 2 of both volumes
    assert {s.subject for s in slices} == {"subject_train"}
    assert {s.image.shape for s in load_slices(select_split(sources, "val"))} == {(48, 56)}
    assert slices[0].image.dtype == np.float16
    assert np.percentile(slices[0].image.astype(float), 99) == pytest.approx(1, abs=0.01)
    assert describe_data(select_split(sources, "train")) == [
        {"subject": "subject_train", "contrasts": "T1W, T1W", "licence": "MIT"}
    ]
    with pytest.raises(InputError, match="'test'"):
        select_split(sources, "test")


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([["a.nii", "s"]], "file,subject", "column 'split' is missing"),
        ([["a.nii", "s", "dev"]], "file,subject,split", "line 2: split 'dev'"),
        ([["b.nii", "s", "val"]], "file,subject,split", "line 2: 'b.nii': expected"),
        ([["a.nii", "s", "val", "3"]], "file,subject,split,slice_axis", "slice_axis '3'"),
        (
            [["a.nii", "s", "val"], ["a.nii", "s", "train"]],
            "file,subject,split",
            "line 3: subject 's' is in two splits",
        ),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named(tmp_path, rows, columns, message):
    save_nifti(tmp_path / "a.nii", noise_volume((8, 8, 8)))
    write_manifest(tmp_path, rows, columns)
    with pytest.raises(InputError, match=message):
        find_sources([tmp_path])


def test_files_without_a_manifest_are_split_by_subject(tmp_path, caplog):
    for i in range(30):
        (tmp_path / f"sub-{i:02}_T1w.nii").touch()
        (tmp_path / f"sub-{i:02}_T2w.nii").touch()
    (tmp_path / "notes.txt").touch()
    with caplog.at_level("INFO", "scoremri_core"):
        sources = find_sources([tmp_path, tmp_path / "sub-00_T1w.nii"])
    assert len(sources) == 60  # the file that is given twice is read once
    subjects = {split: set() for split in ("train", "val", "test")}
    for source in sources:
        subjects[source.split].add(source.subject)
    assert [len(found) for found in subjects.values()] == [24, 3, 3]
    assert len(set.union(*subjects.values())) == 30  # both files of a subject are in one split
    assert "24 subjects for training, 3 for validation, 3 for test" in caplog.text
    assert "sub-" not in caplog.text
    assert find_sources([tmp_path]) == sources
    few = find_sources([tmp_path / "sub-00_T1w.nii", tmp_path / "sub-01_T1w.nii"])
    assert sorted(source.split for source in few) == ["train", "val"]


def test_paths_that_hold_nothing_are_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    for path, message in (
        (tmp_path, "no volumes"),
        (tmp_path / "notes.txt", "expected a .nii"),
        (tmp_path / "gone", "no such file or folder"),
    ):
        with pytest.raises(InputError, match=message):
            find_sources([path])


def test_slices_lie_across_the_thickest_voxels(tmp_path):
    thick = save_nifti(tmp_path / "a.nii", noise_volume((12, 10, 14)), (1, 4, 1))
    (stack,) = read_stacks(Source(thick, "s", "train"))
    assert stack.shape == (10, 12, 14)
    cubes = save_nifti(tmp_path / "b.nii", noise_volume((12, 10, 14)))
    assert [s.shape for s in read_stacks(Source(cubes, "s", "train"))] == [
        (4, 10, 14),
        (4, 12, 14),
        (5, 12, 10),
    ]


def test_volumes_that_are_none_are_named(tmp_path):
    save_nifti(tmp_path / "4d.nii", noise_volume((8, 8, 8, 2)))
    whole = save_nifti(tmp_path / "whole.nii.gz", noise_volume()).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nii").write_text("no volume")
    (tmp_path / "text.h5").write_text("no volume")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["pictures"] = np.ones((2, 8, 8))
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["image"] = np.ones(8)
    for name, message in (
        ("4d.nii", "expected a 3D volume"),
        ("cut.nii.gz", "not readable as NIfTI"),
        ("text.nii", "not readable as NIfTI"),
        ("text.h5", "not readable as HDF5"),
        ("other.h5", "expected a dataset 'image'"),
        ("flat.h5", "expected complex numbers or magnitudes"),
    ):
        with pytest.raises(InputError, match=rf"{name}: .*{message}"):
            read_stacks(Source(tmp_path / name, "s", "train"))


def test_a_reader_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    path = save_nifti(tmp_path / "a.nii.gz", noise_volume())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"a\.nii\.gz: NIfTI needs NiBabel, of the extra `train`"):
        read_stacks(Source(path, "s", "train"))


def test_complex_images_keep_their_phase(tmp_path):
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(3, 40, 50)) + 1j * rng.normal(size=(3, 40, 50))).astype(np.complex64)
    image[1] = 0  # an empty slice is left out
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = 7 * image
        file["magnitude"] = np.abs(image)
    (stack,) = read_stacks(Source(tmp_path / "a.h5", "s", "train"))
    assert stack.dtype == np.complex64
    for found, given in zip(stack, image[[0, 2]], strict=True):
        np.testing.assert_allclose(np.angle(found / given), 0, atol=1e-5)
        assert np.percentile(np.abs(found), 99) == pytest.approx(1, rel=1e-4)
    (stack,) = read_stacks(Source(tmp_path / "a.h5", "s", "train", dataset="magnitude"))
    assert stack.dtype == np.float16


def test_a_measured_patch_is_its_slice_up_to_a_smooth_phase():
    """At 140 pixels nothing is resampled: some symmetry of the square gives the slice back."""
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(140, 140)) + 1j * rng.normal(size=(140, 140))).astype(np.complex64)
    patch = measured_patch(image, 140, np.random.default_rng(3))
    again = training_patch(image, 140, np.random.default_rng(3))
    np.testing.assert_array_equal(patch, again)
    symmetric = [np.rot90(x, k) for x in (image, image.T) for k in range(4)]
    # neighbours share the phase that was added, and a global scale
    steps = [np.vdot(x[1:] * x[:-1].conj(), patch[1:] * patch[:-1].conj()) for x in symmetric]
    norms = np.linalg.norm(image[1:] * image[:-1].conj()) * np.linalg.norm(
        patch[1:] * patch[:-1].conj()
    )
    assert sorted(np.abs(steps) / norms)[-2] < 0.1
    assert max(np.abs(steps) / norms) > 0.99


def test_a_scanned_image_shows_the_whole_slice_at_its_own_contrast():
    y, x = np.ogrid[-1:1:200j, -1:1:160j]
    slice_ = (np.exp(-8 * (x**2 + y**2)) * (2 + np.cos(9 * x))).astype(np.float16)
    image = scanned_image(slice_, 100, np.random.default_rng(0))
    assert image.shape == (100, 100)
    assert image.dtype == np.complex64
    # 200 x 160 become 100 x 80, in the middle
    expected = slice_.reshape(100, 2, 80, 2).astype(np.float32).mean((1, 3))
    np.testing.assert_allclose(np.abs(image[:, 10:90]), expected, atol=0.05 * expected.max())
    assert np.abs(image[:, :10]).max() < 0.02
    assert np.ptp(np.angle(image[50, 30:70])) > 0.05
    # what was measured keeps its phase
    measured = scanned_image(image[:, 10:90], 120, np.random.default_rng(0))
    np.testing.assert_array_equal(measured[10:110, 20:100], image[:, 10:90])


def test_the_phase_of_training_images_follows_the_anatomy():
    """Beside what is smooth, as in measured scans; and what has no magnitude has no say in it."""
    square = np.zeros((96, 96), np.float16)
    square[24:72, 24:72] = 1
    square[40:56, 40:56] = 0.4
    edges = []
    for seed in range(40):
        phase = np.angle(scanned_image(square, 96, np.random.default_rng(seed)))
        steps = np.abs(np.angle(np.exp(1j * np.diff(phase[26:70, 26:70], axis=0))))
        at_an_edge = steps[[12, 13, 14, 28, 29, 30]][:, 14:30]
        edges.append(at_an_edge.mean() / steps[:10].mean())
    # 0.8 of the images have it
    assert np.median(edges) > 1.3
    assert np.sort(edges)[-10] > 2


@pytest.fixture
def scan(tmp_path):
    """Two slices of the head phantom, fully sampled, with correlated noise."""
    simulated = SimulatedScan((64, 64), coils=4, slices=2, snr=60)
    write_scan(tmp_path / "full.h5", simulated.header, simulated)
    return simulated, tmp_path / "full.h5"


def test_a_scan_is_read_as_its_mvue(scan):
    simulated, path = scan
    (stack,) = read_stacks(Source(path, "s", "train"))
    assert stack.shape == (2, 64, 64)
    for found, truth in zip(stack, simulated.image, strict=True):
        head = np.abs(truth) > 0.1 * np.abs(truth).max()
        a, b = np.abs(found[head]), np.abs(truth[head])
        scale = a @ b / (b @ b)
        assert np.linalg.norm(a - scale * b) < 0.05 * np.linalg.norm(a)
        # the phase is that of the virtual coil: smooth where there is signal
        steps = np.angle(found[1:] * found[:-1].conj())[head[1:] & head[:-1]]
        assert np.median(np.abs(steps)) < 0.2


def test_scans_that_are_not_fully_sampled_are_refused(scan, tmp_path):
    simulated, _ = scan
    lines = list(simulated)
    write_scan(tmp_path / "und.h5", simulated.header, lines[::2])
    with pytest.raises(InputError, match=r"und\.h5.*not fully sampled"):
        read_stacks(Source(tmp_path / "und.h5", "s", "train"))
    header = simulated.header
    header.encoding[0].encodingLimits.kspace_encoding_step_1.maximum = 47
    kept = [line for line in lines if line.idx.kspace_encode_step_1 < 48]
    write_scan(tmp_path / "partial.h5", header, kept)
    with pytest.raises(InputError, match=r"partial\.h5: partial Fourier"):
        read_stacks(Source(tmp_path / "partial.h5", "s", "train"))


def test_slices_are_prepared_once(folder, monkeypatch):
    sources, cache = select_split(find_sources([folder]), "train"), folder / "cache"
    read = []

    def counted(source):
        read.append(source.path.name)
        return read_stacks(source)

    monkeypatch.setattr(slices_module, "read_stacks", counted)
    plain = load_slices(sources)
    read.clear()
    for again in (load_slices(sources, cache), load_slices(sources, cache)):
        assert len(again) == len(plain)
        for a, b in zip(again, plain, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            assert (a.subject, a.contrast) == (b.subject, b.contrast)
    assert read == ["a.nii.gz", "b.nii.gz"]

    read.clear()
    status = (folder / "a.nii.gz").stat()
    os.utime(folder / "a.nii.gz", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    load_slices(sources, cache)
    assert read == ["a.nii.gz"]  # it has changed

    read.clear()
    kept = sorted(cache.iterdir())
    assert [path.suffix for path in kept] == [".npz", ".npz"]
    for path in kept:
        path.write_bytes(path.read_bytes()[:1000])
    assert len(load_slices(sources, cache)) == len(plain)
    assert read == ["a.nii.gz", "b.nii.gz"]  # they were damaged


def test_files_with_nothing_in_them_are_refused(tmp_path):
    empty = save_nifti(tmp_path / "empty.nii", np.zeros((8, 8, 8), np.float32))
    with pytest.raises(InputError, match=r"empty\.nii: all slices are empty"):
        load_slices([Source(empty, "s", "train")], tmp_path / "cache")


def test_the_axes_of_an_array_may_change(tmp_path):
    scan = SimulatedScan((24, 20), coils=2)
    np.save(tmp_path / "k.npy", zero_filled_kspace(scan))
    shapes = []
    for time, axes in enumerate((["slice", "coil", "y", "x"], ["slice", "coil", "x", "y"])):
        sidecar = tmp_path / "k.json"
        sidecar.write_text(json.dumps({"axes": axes, "field_of_view": [200, 200, 5]}))
        os.utime(sidecar, (time, time))
        (only,) = load_slices([Source(tmp_path / "k.npy", "s", "train")], tmp_path / "cache")
        shapes.append(only.image.shape)
    assert shapes == [(24, 20), (20, 24)]
