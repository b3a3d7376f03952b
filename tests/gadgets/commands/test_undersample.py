import numpy as np
import pytest

from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan

SCAN = SimulatedScan((48, 24), coils=2)


@pytest.fixture
def full(tmp_path):
    write_scan(tmp_path / "full.h5", SCAN.header, SCAN)
    return tmp_path / "full.h5"


def test_kept_lines_are_unchanged_and_the_true_acceleration_is_logged(run, full, tmp_path):
    code, _, err = run("undersample", full, "-o", tmp_path / "thin.h5", "-R", 4, "--calibration", 8)
    assert code == 0
    assert "true acceleration 2.67" in err
    with open_scan(full) as scan, open_scan(tmp_path / "thin.h5") as thin:
        whole, left = zero_filled_kspace(scan)[0], zero_filled_kspace(thin)[0]
    lines = np.flatnonzero(np.any(left != 0, axis=(0, 2))).tolist()
    assert lines == sorted({*range(0, 48, 4), *range(20, 28)})
    assert np.array_equal(left[:, lines], whole[:, lines])


@pytest.mark.parametrize("mask", ["random", "gaussian", "poisson"])
def test_the_seed_determines_the_pattern(run, full, tmp_path, mask):
    def undersampled(seed):
        path = tmp_path / f"{mask}{seed}.h5"
        arguments = ["--mask", mask, "--acceleration", 6, "--calibration", 6, "--seed", seed]
        assert run("undersample", full, "-o", path, *arguments, "--overwrite")[0] == 0
        with open_scan(path) as scan:
            return scan.heads()["idx"]["kspace_encode_step_1"].tolist()

    assert undersampled(1) == undersampled(1)
    assert undersampled(1) != undersampled(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-R", "0.5"], "acceleration 0.5"),
        (["-R", "2.5"], "whole number"),
        (["--calibration", "49"], "calibration 49"),
        (["--mask", "spiral"], "mask 'spiral'"),
        (["--axis", "both"], "partitions"),
        (["--group", "other"], "no group 'other'"),
    ],
)
def test_refusals_leave_nothing_behind(run, full, tmp_path, arguments, words):
    code, _, err = run("undersample", full, "-o", tmp_path / "thin.h5", *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [full]


def test_files_without_a_scan_are_refused(run, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    code, _, err = run("undersample", text, "-o", tmp_path / "thin.h5")
    assert (code, err) == (2, f"scoremri: {text}: not an ISMRMRD file (not readable as HDF5)\n")
