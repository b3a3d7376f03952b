"""A point of an oblique scan, found where it is by readers of NIfTI and DICOM that are not ours."""

import shutil
import subprocess
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd

from scoremri_core import Reconstruction, Reconstructor, reconstruct
from scoremri_core.errors import InputError
from scoremri_core.images.export import check, export, parse_formats
from scoremri_core.images.series import read_series, series_of
from scoremri_core.simulation.simulation import SimulatedScan

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

SHAPE = (3, 12, 10)  # slices, y, x
SIDES = np.array([2.0, 3.0, 4.0])  # of a pixel along x and y, and between slices
CENTER = np.array([11.0, -23.0, 37.0])
POINT = (7, 2, 2)  # x, y and slice of the bright pixel
SD_OF_MEAN = 0.05


def rotation():
    """An oblique, left-handed set of directions: read, phase and slice as columns."""
    matrix, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    return matrix if np.linalg.det(matrix) < 0 else -matrix


AXES = rotation()
# pixel n // 2 of each axis is where the position says; slice 1 is the middle one
TRUTH = CENTER + AXES @ (SIDES * (np.array(POINT) - [10 // 2, 12 // 2, 1]))


@pytest.fixture
def images(tmp_path):
    """Mean and sd of three slices, not in their order, in an ISMRMRD file."""
    path = tmp_path / "images.h5"
    _, ny, nx = SHAPE
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        for number in (1, 0, 2):
            pixels = np.random.default_rng(number).uniform(0, 0.2, (1, ny, nx)).astype(np.float32)
            if number == POINT[2]:
                pixels[0, POINT[1], POINT[0]] = 3.0
            for index, (kind, factor) in enumerate((("mean", 1), ("std", SD_OF_MEAN)), start=1):
                image = ismrmrd.Image.from_array(
                    pixels * np.float32(factor),
                    image_series_index=index,
                    image_type=ismrmrd.IMTYPE_MAGNITUDE,
                    field_of_view=(SIDES[0] * nx, SIDES[1] * ny, SIDES[2]),
                )
                image.slice = number
                middle = CENTER + AXES[:, 2] * SIDES[2] * (number - 1)
                for name, value in zip(
                    ("position", "read_dir", "phase_dir", "slice_dir"),
                    (middle, *AXES.T),
                    strict=True,
                ):
                    getattr(image, name)[:] = value.tolist()
                image.meta = ismrmrd.Meta(
                    {
                        "SequenceDescriptionAdditional": f"scoremri_{kind}",
                        "SeriesDescription": f"scoremri {kind}",
                        "ImageComment": f"the {kind}",
                        "units": "pixels and window: k-space; scale: k-space",
                    }
                )
                dataset.append_image(f"image_{index}", image)
    return path


def world(image):
    """Where the brightest voxel of a NIfTI image lies, in LPS."""
    array = np.asarray(image.dataobj)
    index = np.unravel_index(array.argmax(), array.shape)
    return np.diag([-1, -1, 1]) @ (image.affine @ [*index, 1])[:3]


def test_nifti_has_the_point_where_it_is(images, tmp_path):
    paths = export(tmp_path / "out.h5", read_series(images), ["nifti"])
    assert [path.name for path in paths] == [
        "out_mean.json", "out_mean.nii.gz", "out_std.json", "out_std.nii.gz",
    ]  # fmt: skip
    mean, sd = (nibabel.load(tmp_path / f"out_{kind}.nii.gz") for kind in ("mean", "std"))
    for image in (mean, sd):
        np.testing.assert_allclose(world(image), TRUTH, atol=1e-3)
        np.testing.assert_allclose(image.header.get_zooms(), SIDES, rtol=1e-5)
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-3)
    np.testing.assert_allclose(sd.get_fdata(), SD_OF_MEAN * mean.get_fdata(), rtol=1e-6)
    assert b"research" in mean.header["descrip"].tobytes()


def test_dicom_has_the_point_where_it_is_and_one_scale(images, tmp_path):
    export(tmp_path / "out.h5", read_series(images), ["dicom"], None)
    files = sorted((tmp_path / "out_dicom" / "001_mean").iterdir())
    datasets = [pydicom.dcmread(path) for path in files]
    brightest = max(datasets, key=lambda own: own.pixel_array.max())
    row, column = np.unravel_index(brightest.pixel_array.argmax(), brightest.pixel_array.shape)
    along = np.array(brightest.ImageOrientationPatient, float)
    spacing = np.array(brightest.PixelSpacing, float)
    # equation C.7.6.2.1-1 of DICOM, part 3
    place = (
        np.array(brightest.ImagePositionPatient, float)
        + along[:3] * spacing[1] * column
        + along[3:] * spacing[0] * row
    )
    np.testing.assert_allclose(place, TRUTH, atol=1e-3)
    slope = float(brightest.RescaleSlope)
    assert slope * brightest.pixel_array.max() == pytest.approx(3.0, abs=slope)

    deviations = [
        pydicom.dcmread(path) for path in sorted((tmp_path / "out_dicom" / "002_std").iterdir())
    ]
    sd = max(deviations, key=lambda own: own.pixel_array.max())
    assert sd.SOPClassUID == brightest.SOPClassUID
    assert float(sd.RescaleSlope) == slope
    assert sd.pixel_array.max() * slope == pytest.approx(3 * SD_OF_MEAN, abs=slope)
    assert sd.ImagePositionPatient == brightest.ImagePositionPatient
    assert sd.ImageOrientationPatient == brightest.ImageOrientationPatient
    for own in (*datasets, *deviations):
        assert "research use only" in own.ImageComments.lower()
        assert own.FrameOfReferenceUID == sd.FrameOfReferenceUID
        assert own.StudyInstanceUID == sd.StudyInstanceUID
    uids = [own.SOPInstanceUID for own in (*datasets, *deviations)]
    assert all(uid.is_valid for uid in uids)
    assert len(set(uids)) == 6
    assert len({own.SeriesInstanceUID for own in (*datasets, sd)}) == 2
    assert len({float(own.WindowWidth) for own in datasets}) == 1

    again = tmp_path / "again"
    again.mkdir()
    export(again / "out.h5", read_series(images), ["dicom"])
    same = [pydicom.dcmread(path) for path in sorted((again / "out_dicom/001_mean").iterdir())]
    assert [own.SOPInstanceUID for own in same] == uids[:3]


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="no dcm2niix")
def test_dcm2niix_has_the_point_where_it_is(images, tmp_path):
    export(tmp_path / "out.h5", read_series(images), ["dicom"])
    for folder in ("001_mean", "002_std"):
        subprocess.run(
            ["dcm2niix", "-b", "n", "-f", folder, "-o", tmp_path, tmp_path / "out_dicom" / folder],
            check=True,
            capture_output=True,
        )
        np.testing.assert_allclose(
            world(nibabel.load(tmp_path / f"{folder}.nii")), TRUTH, atol=0.01
        )


def test_the_header_of_the_scan_tells_patient_and_study(images, tmp_path):
    header = SimulatedScan((16, 16), 1).header
    header.subjectInformation.patientName = "Müller^A"
    header.studyInformation = xsd.studyInformationType(studyInstanceUID="1.2.3.4")
    export(tmp_path / "out.h5", read_series(images), ["dicom"], header)
    own = pydicom.dcmread(tmp_path / "out_dicom" / "001_mean" / "00001.dcm")
    assert (str(own.PatientName), own.PatientID) == ("Müller^A", "phantom0")
    assert (own.StudyInstanceUID, own.PatientPosition) == ("1.2.3.4", "HFS")


def test_scans_of_the_same_number_are_not_one_study(images, tmp_path):
    series, header = read_series(images), SimulatedScan((16, 16), 1).header
    other = [replace(own, pictures=[brighter(p) for p in own.pictures]) for own in series]
    studies = []
    for name, own in (("one", series), ("same", series), ("other", other)):
        export(tmp_path / f"{name}.h5", own, ["dicom"], header)
        read = pydicom.dcmread(tmp_path / f"{name}_dicom" / "001_mean" / "00001.dcm")
        studies.append(read.StudyInstanceUID)
    assert studies[0] == studies[1] != studies[2]


def brighter(picture):
    return replace(picture, pixels=2 * picture.pixels)


def test_what_is_there_is_kept(images, tmp_path):
    export(tmp_path / "out.h5", read_series(images), ["nifti", "dicom"])
    for name in ("nifti", "dicom"):
        with pytest.raises(InputError, match="already exists; --overwrite"):
            check(tmp_path / "out.h5", [name], overwrite=False)
        check(tmp_path / "out.h5", [name], overwrite=True)
    before = sorted(tmp_path.iterdir())
    export(tmp_path / "out.h5", read_series(images), ["nifti", "dicom"])
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(InputError, match="format 'gif': expected a comma list of h5, nifti, dicom"):
        parse_formats("h5,gif")


def test_a_kind_of_image_names_a_file_and_no_other_folder(images):
    (picture, *_) = read_series(images)[0].pictures
    kind = {"SequenceDescriptionAdditional": "scoremri_../../mean"}
    (series,) = series_of([("image_1", [replace(picture, attributes=kind)])])
    assert series.name == ".._.._mean"


def test_uneven_slices_are_refused_by_nifti_and_leave_nothing(images, tmp_path):
    series = read_series(images)
    series[1].pictures[0].header.position[0] += 1
    with pytest.raises(InputError, match="not parallel and evenly spaced, as NIfTI needs"):
        export(tmp_path / "out.h5", series, ["nifti"])
    assert [path.name for path in tmp_path.iterdir()] == ["images.h5"]


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    shape = (2, 3, 32, 32)
    scan = SimulatedScan((32, 32), 3)
    from scoremri_core.scans.gridding import zero_filled_kspace

    kspace = zero_filled_kspace(scan)[0]
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return (kspace + 0.01 * noise).astype(np.complex64)


class Unit:
    """The denoiser of images of unit variance."""

    def denoise(self, x, sigma):
        return x / (1 + sigma[:, None, None] ** 2)


def test_a_reconstructor_does_as_reconstruct(frames):
    options = {"samples": 2, "steps": 2, "maps": 1, "prior": Unit()}
    keeping = Reconstructor(**options)
    for frame in frames:
        np.testing.assert_array_equal(keeping(frame).mean, reconstruct(frame, **options).mean)
    maps = keeping.calibrate(frames[0])
    np.testing.assert_array_equal(maps, reconstruct(frames[0], maps=1, sampler="none").maps)
    options["calibration"] = frames[0]
    for seed, frame in enumerate(frames):
        np.testing.assert_array_equal(
            keeping(frame, seed=seed).samples, reconstruct(frame, seed=seed, **options).samples
        )


def test_a_reconstruction_is_drawn_and_written(frames, tmp_path):
    result = reconstruct(frames[0], sampler="none")
    assert isinstance(result, Reconstruction)
    figure = result.plot()
    assert figure.axes[0].get_title() == "posterior mean"
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), np.abs(result.mean[0]))
    result.to_nifti(tmp_path / "mean.nii.gz", voxel_size=(1, 2, 5))
    image = nibabel.load(tmp_path / "mean.nii.gz")
    np.testing.assert_array_equal(image.get_fdata()[:, :, 0].T, np.abs(result.mean[0]))
    np.testing.assert_array_equal(image.affine[:3, 3], [16, 32, 0])
    for wrong in ({"what": "maps"}, {"voxel_size": (1, 2)}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            result.to_nifti(tmp_path / "no.nii", **wrong)
