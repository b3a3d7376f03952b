import numpy as np
import pytest

from scoremri_core.scans.files import write_scan
from scoremri_core.scans.gridding import fully_sampled_kspace
from scoremri_core.simulation.simulation import SimulatedScan

SCAN = SimulatedScan((24, 20), coils=2)


@pytest.fixture
def scan(tmp_path):
    write_scan(tmp_path / "scan.h5", SCAN.header, SCAN)
    return tmp_path / "scan.h5"


def test_raw_data_are_converted_and_back(run, scan, tmp_path):
    assert run("convert", scan, tmp_path / "k.cfl")[0] == 0
    assert run("convert", tmp_path / "k.cfl", tmp_path / "back.h5")[0] == 0
    back = fully_sampled_kspace(tmp_path / "back.h5")
    np.testing.assert_array_equal(back, fully_sampled_kspace(scan))
    before = (tmp_path / "back.h5").read_bytes()
    code, _, err = run("convert", scan, tmp_path / "back.h5")
    assert (code, err.count("\n")) == (2, 1)
    assert "back.h5: already exists; --overwrite replaces it" in err
    assert (tmp_path / "back.h5").read_bytes() == before
    assert run("convert", scan, tmp_path / "back.h5", "--overwrite")[0] == 0


def test_replay_and_convert_write_the_same_images(run, scan, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pydicom = pytest.importorskip("pydicom")
    asked = ("-p", "sampler=none")
    code, _, err = run(
        "replay", scan, "-o", tmp_path / "a.h5", "--format", "h5,nifti,dicom", *asked
    )
    assert code == 0, err
    assert run("replay", scan, "-o", tmp_path / "b.h5", "--format", "nifti", *asked)[0] == 0
    convert = ("convert", tmp_path / "a.h5")
    assert run(*convert, tmp_path / "c.dcm", "--scan", scan)[0] == 0
    assert run(*convert, tmp_path / "c.nii.gz")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.h5", "a_dicom", "a_mean.json", "a_mean.nii.gz", "b_mean.json", "b_mean.nii.gz",
        "c_dicom", "c_mean.json", "c_mean.nii.gz", "scan.h5",
    ]  # fmt: skip
    one, *others = (nibabel.load(tmp_path / f"{name}_mean.nii.gz") for name in "abc")
    for other in others:
        np.testing.assert_array_equal(one.get_fdata(), other.get_fdata())
    made, again = (
        pydicom.dcmread(tmp_path / f"{name}_dicom" / "001_mean" / "00001.dcm") for name in "ac"
    )
    assert made.SOPInstanceUID == again.SOPInstanceUID
    assert made.PatientID == SCAN.header.subjectInformation.patientID
    np.testing.assert_array_equal(made.pixel_array, again.pixel_array)
    code, _, err = run("replay", scan, "-o", tmp_path / "a.h5", "--format", "dicom", *asked)
    assert code == 2
    assert "a_dicom: already exists" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{scan}", "new.gif"), "expected a name that ends with .h5, .mrd, .cfl, .npy"),
        (("{scan}", "new.nii.gz"), "is raw data"),
        (("{scan}",), "raw data: expected B"),
        (("{scan}", "new.npy", "--format", "nifti"), "neither --format nor --scan"),
    ],
)
def test_conflicting_options_are_refused(run, scan, tmp_path, arguments, message):
    given = [part.format(scan=scan).replace("new", f"{tmp_path}/new") for part in arguments]
    code, _, err = run("convert", *given)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert list(tmp_path.iterdir()) == [scan]
