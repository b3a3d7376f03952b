"""Validity of DICOM for dciodvfy and dcm2niix."""

import shutil
import subprocess

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd
from xsdata.models.datatype import XmlDate, XmlTime

from scoremri_core.images import dicom_values
from scoremri_core.images.dicom import write_series
from scoremri_core.images.nifti import RAS_OF_LPS, stacked
from scoremri_core.images.series import PREFIX, Picture, Series, read_series
from scoremri_core.simulation.simulation import SimulatedScan

pydicom = pytest.importorskip("pydicom")

validator = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (dicom3tools)")
converter = pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="no dcm2niix")

OUTPUTS = {"mean": 1, "std": 0.05, "phase": None, "samples": 1, "zero_filled": 1.1, "classical": 1}
AXES = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
SIEMENS = SimulatedScan((16, 16), 1).header
SIEMENS.acquisitionSystemInformation.systemVendor = "SIEMENS"


def series_of(shape=(1, 6, 5), slices=1, frames=1, unit=1.0, scan=None):
    """Return all outputs of a scan with several contrasts and repetitions, pixels up to `unit`."""
    rng = np.random.default_rng(0)
    made = []
    for index, (output, factor) in enumerate(OUTPUTS.items(), start=1):
        pictures = []
        for number in np.ndindex(frames, frames, slices, 2 if output == "samples" else 1):
            contrast, repetition, place, _ = number
            head = ismrmrd.ImageHeader(version=1)
            head.matrix_size[:] = shape[::-1]
            head.field_of_view[:] = (2.0 * shape[2], 3.0 * shape[1], 4.0 * shape[0])
            head.position[:] = (AXES[:, 2] * 4.5 * place + [5, -7, 9]).tolist()
            head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = AXES.T.tolist()
            head.contrast, head.repetition, head.slice = contrast, repetition, place
            head.image_type = ismrmrd.IMTYPE_MAGNITUDE if factor else ismrmrd.IMTYPE_PHASE
            pixels = rng.uniform(0, unit * factor, shape) if factor else rng.uniform(-3, 3, shape)
            attributes = {
                "SequenceDescriptionAdditional": PREFIX + output,
                "SeriesDescription": f"scoremri {output}",
                "ImageComment": f"{output}, 2 samples by posterior, prior C:\\priors\nmine",
            }
            pictures.append(Picture(pixels.astype(np.float32), head, attributes, scan))
        made.append(Series(index, output, pictures))
    return made


def written(folder, series, header=None):
    """Write all outputs and return their datasets by folder."""
    write_series(folder, series, header)
    return {
        each.name: [pydicom.dcmread(path) for path in sorted(each.iterdir())]
        for each in sorted(folder.iterdir())
    }


def errors(folder):
    """Return the errors of dciodvfy for the files of a folder."""
    found = set()
    for path in sorted(folder.rglob("*.dcm")):
        checked = subprocess.run(
            ["dciodvfy", path], capture_output=True, text=True, errors="replace"
        )
        lines = (checked.stdout + checked.stderr).splitlines()
        assert any("MRImage" in line for line in lines)
        found |= {(path.parent.name, line) for line in lines if line.startswith("Error")}
    return found


KINDS = {
    "slice": {},
    "stack": {"slices": 3},
    "volume": {"shape": (3, 6, 5), "scan": SIEMENS},
    "contrasts and repetitions": {"frames": 2},
    "vendor units": {"unit": 3e-5},
    "tiny": {"unit": 1e-30},
    "large": {"unit": 4e9},
    "nothing": {"unit": 0},
}


@validator
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_output_is_valid(tmp_path, kind):
    header = SIEMENS if kind in ("slice", "volume") else None
    write_series(tmp_path / "dicom", series_of(**KINDS[kind]), header)
    assert errors(tmp_path / "dicom") == set()


@validator
def test_nonfinite_pixels_are_zero(tmp_path):
    series = series_of()[:1]
    (picture,) = series[0].pictures
    picture.pixels[0, 0, :3] = np.nan, np.inf, -np.inf
    for field in (picture.header.position, picture.header.read_dir, picture.header.field_of_view):
        field[0] = np.nan
    header = header_with({})
    header.sequenceParameters = xsd.sequenceParametersType(TR=[np.nan], TE=[np.inf])
    write_series(tmp_path / "dicom", series, header)
    assert errors(tmp_path / "dicom") == set()


@pytest.mark.parametrize("unit", [3e-5, 1.0, 4e9])
def test_every_output_is_an_image_in_its_units_with_a_window(tmp_path, unit):
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    series = series_of(unit=unit, shape=(2, 6, 5))
    slopes = set()
    for each, datasets in zip(series, written(tmp_path / "dicom", series).values(), strict=True):
        first = datasets[0]
        truth = np.concatenate([picture.pixels for picture in each.pictures])
        values = np.array([apply_modality_lut(one.pixel_array, one) for one in datasets])
        slope = float(first.RescaleSlope)
        np.testing.assert_allclose(values, truth, atol=0.51 * slope)
        assert slope < (1e-4 if each.is_phase else 2e-5 * unit)
        assert {one.SOPClassUID.name for one in datasets} == {"MR Image Storage"}
        assert first.ImageType[3:] == ["P" if each.is_phase else "M", each.name.upper()]
        grey = apply_voi_lut(values[0], first)
        low = float(first.WindowCenter) - float(first.WindowWidth) / 2
        shown = np.clip((values[0] - low) / float(first.WindowWidth), 0, 1)
        assert np.corrcoef(grey.ravel(), shown.ravel())[0, 1] > 1 - 1e-9
        slopes |= set() if each.is_phase else {slope}
    assert len(slopes) == 1


@converter
@pytest.mark.parametrize("kind", ["slice", "stack", "volume", "vendor units", "large"])
def test_dcm2niix_gives_the_values_and_geometry_of_the_nifti_export(tmp_path, kind):
    nibabel = pytest.importorskip("nibabel")
    series = series_of(**KINDS[kind])
    write_series(tmp_path / "dicom", series)
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "%s", "-o", tmp_path, tmp_path / "dicom"]
    subprocess.run(command, check=True, capture_output=True)
    for each in series:
        array, affine = stacked(each)
        (path,) = tmp_path.glob(f"{each.index}*.nii")
        theirs = nibabel.load(path)
        ours = nibabel.Nifti1Image(array, RAS_OF_LPS @ affine)
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(theirs.affine), nibabel.io_orientation(ours.affine)
        )
        turned = theirs.as_reoriented(turn)
        if array.shape[2] > 1:  # a single slice has no spacing
            np.testing.assert_allclose(turned.affine, ours.affine, atol=2e-3)
        np.testing.assert_allclose(
            turned.affine[:, [0, 1, 3]], ours.affine[:, [0, 1, 3]], atol=2e-3
        )
        top = np.pi if each.is_phase else KINDS[kind].get("unit", 1.0)
        np.testing.assert_allclose(turned.get_fdata(), array, atol=2e-5 * top)


HEADERS = {
    "nobody": {},
    "time": {"studyTime": XmlTime(23, 59, 59, 500_000_000)},
    "zone": {"studyTime": XmlTime(23, 59, 59, offset=0), "studyDate": XmlDate(2025, 12, 31, 60)},
    "uid": {"studyInstanceUID": "anonymous", "frameOfReferenceUID": "1.02.3"},
    "root": {"studyInstanceUID": "3.4", "frameOfReferenceUID": "1" * 65},
    "long": {"studyDescription": "Kopf mit Länge " * 8, "protocolName": "ß" * 90,
             "studyID": "x" * 20},
    "backslash": {"patientID": "A\\B", "protocolName": "gre\\2d\nnew\tline", "systemModel": "a\\b"},
    "name": {"patientName": "x" * 90, "patientID": "y" * 90},
    "groups": {"patientName": "a^b^c^d^e^f=g=h=i", "referringPhysicianName": "Müller^Jörg\\X"},
    "numbers": {"accessionNumber": 12345678901234567890, "systemFieldStrength_T": 2.89362001},
    "other": {"patientGender": "O", "bodyPartExamined": "KNEE"},
}  # fmt: skip


def header_with(fields):
    """Return an ISMRMRD header with these fields in their sections."""
    header = SimulatedScan((16, 16), 1).header
    header.subjectInformation = xsd.subjectInformationType()
    header.studyInformation = xsd.studyInformationType()
    sections = (
        "subjectInformation",
        "studyInformation",
        "measurementInformation",
        "acquisitionSystemInformation",
    )
    for name, value in fields.items():
        (section,) = (s for s in sections if hasattr(getattr(header, s), name))
        setattr(getattr(header, section), name, value)
    return header


@validator
@pytest.mark.parametrize("name", HEADERS)
def test_dicom_is_valid_for_any_header(tmp_path, name):
    write_series(tmp_path / "dicom", series_of()[:1], header_with(HEADERS[name]))
    assert errors(tmp_path / "dicom") == set()


def test_header_values_are_kept_if_dicom_allows(tmp_path):
    fields = {key: value for group in HEADERS.values() for key, value in group.items()}
    fields |= {"patientBirthdate": XmlDate(1970, 1, 2), "patientName": "Müller^Jörg"}
    (one,) = written(tmp_path / "dicom", series_of()[:1], header_with(fields))["001_mean"]
    assert (one.PatientName, one.PatientBirthDate) == ("Müller^Jörg", "19700102")
    assert (one.StudyDate, one.StudyTime) == ("20251231", "235959")
    assert one.StudyInstanceUID.is_valid
    assert one.FrameOfReferenceUID.is_valid


def test_texts_become_valid_values():
    values = dicom_values
    assert values.text("A\\B\n\x1b") == "A/B"
    assert values.text(None) == ""
    cut = values.text("x" + "ä" * 40)
    assert cut == "x" + "ä" * 31  # 63 bytes: no partial characters
    assert values.person("a^b^c^d^e^f=g=h=i") == "a^b^c^d^e=g=h"
    assert values.person("x" * 90) == "x" * 64
    assert values.time("23:59:59.500") == "235959.5"
    assert values.time("07:08:09.000000001+02:00") == "070809"
    assert values.time("24:00:00") == values.time(None) == ""
    assert values.date("2025-12-31Z") == "20251231"
    assert values.date("12025-12-31") == values.date("2025-13-01") == values.date(None) == ""
    assert values.uid(" 1.2.840 ") == "1.2.840"
    assert values.uid("1.02") == values.uid("3.4") == values.uid("anonymous") == ""
    assert values.uid("1." + "2" * 63) == values.uid(None) == ""
    assert values.code("zero_filled") == "ZERO_FILLED"
    assert values.code("image-1 of another size") == "IMAGE_1 OF ANOTH"
    assert values.number(np.nan) == values.number(np.inf) == ""
    for number in (-np.pi * 1e-300, 1 / 3e30, -123456789.123, -0.0):
        assert len(values.number(number)) <= 16
        assert float(values.number(number)) == pytest.approx(number, rel=1e-7)


def test_complex_and_dimensionless_series_are_exported(tmp_path):
    """A complex series becomes magnitude and phase; a g-factor keeps its scale next to images."""
    rng = np.random.default_rng(0)
    mean = (1000 * (rng.normal(size=(1, 6, 5)) + 1j * rng.normal(size=(1, 6, 5)))).astype("c8")
    g = rng.uniform(1, 3, (1, 6, 5)).astype(np.float32)
    units = {"complex_mean": "k-space", "g_factor": "dimensionless"}
    with ismrmrd.Dataset(str(tmp_path / "x.h5"), "dataset") as dataset:
        for index, (name, pixels) in enumerate({"complex_mean": mean, "g_factor": g}.items(), 1):
            image = ismrmrd.Image.from_array(pixels, image_series_index=index)
            image.field_of_view = 10, 18, 4
            image.meta = ismrmrd.Meta(
                SequenceDescriptionAdditional=PREFIX + name,
                SeriesDescription=name,
                ImageComment=name,
                units=f"pixels and window: {units[name]}; sigma_n: k-space",
            )
            dataset.append_image(f"image_{index}", image)
    series = read_series(tmp_path / "x.h5")
    assert [each.name for each in series] == ["complex_mean", "complex_mean_phase", "g_factor"]
    magnitude, phase = (each.pictures[0].pixels for each in series[:2])
    np.testing.assert_allclose(magnitude * np.exp(1j * phase), mean[0][None], rtol=1e-5)
    found = written(tmp_path / "dicom", series)
    for each, expected in zip(found.values(), (abs(mean), np.angle(mean), g), strict=True):
        (dataset,) = each
        pixels = dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept
        np.testing.assert_allclose(pixels, expected[0], atol=np.ptp(expected) / 3000)
    assert [each[0].ImageType[3] for each in found.values()] == ["M", "P", "M"]
    if shutil.which("dciodvfy"):
        assert not errors(tmp_path / "dicom")
