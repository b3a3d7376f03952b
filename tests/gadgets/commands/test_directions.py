"""A blob at a place known in millimetres is found there, whichever sign the raw data have."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from ismrmrd.hdf5 import acquisition_header_dtype

from gadgets.commands.report_images import read_frames
from scoremri_core.images.export import export
from scoremri_core.images.series import read_series
from scoremri_core.mri.fourier import to_image
from scoremri_core.reports.geometry import letters
from scoremri_core.scans.directions import as_attributes, image_directions, pixel_directions
from scoremri_core.scans.files import write_scan
from scoremri_core.scans.flags import LAST_IN_SLICE, imaging_lines
from scoremri_core.scans.formats.array_scan import ArrayScan
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan

POSITION = np.array([11.0, -23.0, 37.0])
PIXEL = np.array([2.0, 3.0, 4.0])  # mm, along read, phase and slice
OFFSET = np.array([9.0, -11.0, 2.6])  # of the blob from the position, mm along these
WIDTH = 4.0  # of the blob, its standard deviation in mm


def rotation(oblique):
    """Read, phase and slice direction as columns, left-handed as Siemens' are."""
    if not oblique:
        return np.eye(3)[[1, 0, 2]]
    matrix, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    return matrix if np.linalg.det(matrix) < 0 else -matrix


@dataclass
class Blob:
    """A scan of a Gaussian blob, whose k-space is known in closed form; two coils, no noise."""

    vendor: str
    shape: tuple  # slices, partitions, lines, samples
    oblique: bool

    @property
    def axes(self):
        return rotation(self.oblique)

    def check(self, place):
        """A place in the patient is the blob's; a single slice does not know how far it is off."""
        known = 2 if self.shape[:2] == (1, 1) else 3
        found = self.axes.T @ (place - POSITION)
        np.testing.assert_allclose(found[:known], OFFSET[:known], atol=0.15)

    @property
    def scan(self):
        slices, nz, ny, nx = self.shape
        header = SimulatedScan((32, 32), 2).header
        header.acquisitionSystemInformation.systemVendor = self.vendor
        encoding = header.encoding[0]
        for space in (encoding.encodedSpace, encoding.reconSpace):
            size, fov = space.matrixSize, space.fieldOfView_mm
            size.x, size.y, size.z = nx, ny, nz
            fov.x, fov.y, fov.z = (PIXEL * (nx, ny, nz)).tolist()
        limits = encoding.encodingLimits
        for limit, count in (
            (limits.kspace_encoding_step_1, ny),
            (limits.kspace_encoding_step_2, nz),
        ):
            limit.maximum, limit.center = count - 1, count // 2
        limits.slice.maximum = slices - 1
        heads = np.zeros(slices * nz * ny, acquisition_header_dtype)
        number, z, y = np.unravel_index(np.arange(len(heads)), (slices, nz, ny))
        heads["version"] = 1
        heads["number_of_samples"], heads["center_sample"] = nx, nx // 2
        heads["available_channels"] = heads["active_channels"] = 2
        heads["idx"]["slice"] = number
        heads["idx"]["kspace_encode_step_1"], heads["idx"]["kspace_encode_step_2"] = y, z
        heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = self.axes.T
        above = (number - slices // 2) * PIXEL[2]
        heads["position"] = POSITION + above[:, None] * self.axes[:, 2]
        heads["flags"][ny * nz - 1 :: ny * nz] = LAST_IN_SLICE
        sign = 1 if self.vendor == "SIEMENS" else -1

        def transform(k, along):
            """Of the blob along an axis, k in cycles a mm."""
            phase = np.exp(sign * 2j * np.pi * k * OFFSET[along])
            return phase * np.exp(-2 * (np.pi * WIDTH * k) ** 2)

        def steps(count, along):
            return (np.arange(count) - count // 2) / (count * PIXEL[along])

        def readout(index):
            line = transform(steps(nx, 0), 0) * transform(steps(ny, 1)[y[index]], 1)
            if nz > 1:
                line = line * transform(steps(nz, 2)[z[index]], 2)
            else:  # the blob is at its position in the slice
                line = line * np.exp(-0.5 * ((above[index] - OFFSET[2]) / WIDTH) ** 2)
            return np.array([[1.0], [0.5j]]) * line

        return ArrayScan("blob", header, heads, readout)


def centroid(values):
    """Of what is bright, in indices."""
    weights = np.where(values > 0.1 * values.max(), values, 0).astype(float)
    return np.array([(weights * axis).sum() for axis in np.indices(values.shape)]) / weights.sum()


def in_nifti(path):
    """Where the blob is, in LPS."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(path)
    return np.diag([-1, -1, 1]) @ (image.affine @ [*centroid(image.get_fdata()), 1])[:3]


def in_dicom(folder):
    """Where the blob is: equation C.7.6.2.1-1 of DICOM, part 3, slice by slice."""
    pydicom = pytest.importorskip("pydicom")
    datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    values = np.array([dataset.pixel_array for dataset in datasets])
    number, row, column = centroid(values)
    first = datasets[0]
    along = np.array(first.ImageOrientationPatient, float)
    spacing = np.array(first.PixelSpacing, float)
    corners = np.array([dataset.ImagePositionPatient for dataset in datasets], float)
    corner = [np.interp(number, np.arange(len(corners)), corner) for corner in corners.T]
    return corner + along[:3] * spacing[1] * column + along[3:] * spacing[0] * row


def check_letters(blob, shown):
    """The blob is as far to the right and down as the directions that the letters name say."""
    view, (ny, nx) = shown.geometry.view(), shown.mean.shape
    center = np.zeros((ny, nx))
    center[ny // 2, nx // 2] = 1
    down, right = centroid(view.of(shown.mean)) - centroid(view.of(center))
    mm = np.array(view.size[::-1]) / view.of(center).shape
    in_plane = blob.axes[:, :2] @ OFFSET[:2]
    assert down * mm[0] == pytest.approx(np.dot(view.down, in_plane), abs=0.15)
    assert right * mm[1] == pytest.approx(np.dot(view.right, in_plane), abs=0.15)
    assert view.edges["right"] == letters(view.right)


KINDS = {
    "slice": ((1, 1, 24, 20), False),
    "oblique stack": ((7, 1, 24, 21), True),
    "volume": ((1, 12, 24, 20), False),
    "oblique volume, odd": ((1, 11, 25, 21), True),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """Shape of a scan, and whether it is oblique."""
    return KINDS[request.param]


@pytest.mark.parametrize("vendor", ["GE", "SIEMENS"])
def test_every_export_has_the_blob_at_its_position(run, tmp_path, vendor, kind):
    blob = Blob(vendor, *kind)
    write_scan(tmp_path / "scan.h5", blob.scan.header, blob.scan)
    images = tmp_path / "out.h5"
    asked = ("-p", "sampler=none", "--format", "h5,nifti,dicom")
    assert run("replay", tmp_path / "scan.h5", "-o", images, *asked)[0] == 0
    blob.check(in_nifti(tmp_path / "out_mean.nii.gz"))
    blob.check(in_dicom(tmp_path / "out_dicom" / "001_mean"))
    shown = max(read_frames(images, "dataset", 20).frames, key=lambda one: one.mean.max())
    check_letters(blob, shown)

    # headers are those of the readouts for every vendor, as in Gadgetron's chains
    (series,) = read_series(images)
    for picture in series.pictures:
        heads = [picture.header.read_dir, picture.header.phase_dir, picture.header.slice_dir]
        np.testing.assert_allclose(np.array(heads), blob.axes.T, atol=1e-6)
    # and images that state no directions lie as the vendor's do
    silent = [replace(p, attributes={}, scan=blob.scan.header) for p in series.pictures]
    export(tmp_path / "silent.h5", [replace(series, pictures=silent)], ["nifti"])
    blob.check(in_nifti(tmp_path / "silent_mean.nii.gz"))


@pytest.mark.parametrize("slices", [1, 7])
def test_an_array_has_the_directions_of_its_pixels(run, tmp_path, slices):
    blob = Blob("SIEMENS", (slices, 1, 24, 21), oblique=True)
    write_scan(tmp_path / "scan.h5", blob.scan.header, blob.scan)
    assert run("convert", tmp_path / "scan.h5", tmp_path / "array.npy")[0] == 0
    asked = ("-p", "sampler=none", "--format", "nifti")
    assert run("replay", tmp_path / "array.npy", "-o", tmp_path / "out.h5", *asked)[0] == 0
    blob.check(in_nifti(tmp_path / "out_mean.nii.gz"))


@pytest.mark.parametrize("vendor", ["SIEMENS", "Siemens Healthineers", "GE MEDICAL SYSTEMS", None])
@pytest.mark.parametrize("partitions", [1, 4])
def test_partitions_are_reversed_and_slices_of_a_stack_are_not(vendor, partitions):
    header = SimulatedScan((32, 32), 2).header
    header.acquisitionSystemInformation.systemVendor = vendor
    head = Blob("GE", (1, 1, 4, 4), oblique=True).scan.heads()[0]
    signs = np.ones(3)
    if vendor and "iemens" in vendor.lower():
        signs = np.array([-1, -1, -1 if partitions > 1 else 1])
    expected = signs[:, None] * rotation(oblique=True).T
    np.testing.assert_allclose(pixel_directions(head, header, partitions), expected, atol=1e-6)
    stated = as_attributes(expected)
    found = image_directions(head, stated, None, partitions)
    np.testing.assert_array_equal(found, expected)
    del stated["ImageSliceDir"]  # as in images of Gadgetron's chains
    found = image_directions(head, stated, header, partitions)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_air_in_a_phantom_is_at_the_top_of_a_supine_patient(data_dir):
    """Of twix, and of ISMRMRD converted from it, with its vendor."""
    pytest.importorskip("twixtools")
    with open_any(data_dir / "raw" / "siemens_twix_gre.dat") as scan:
        assert scan.header.acquisitionSystemInformation.systemVendor == "SIEMENS"
        assert "<systemVendor>SIEMENS</systemVendor>" in scan.header_xml
        heads = scan.heads()
        _, down, _ = pixel_directions(heads[imaging_lines(heads)][0], scan.header, partitions=1)
        kspace = zero_filled_kspace(scan)[0]
    assert abs(down[1]) > 0.99  # to the back or to the front
    image = np.sqrt((np.abs(to_image(kspace)) ** 2).sum(axis=0))
    phantom = image > 0.3 * np.percentile(image, 95)
    widths = phantom.sum(axis=1) if down[1] > 0 else phantom.sum(axis=1)[::-1]
    inside = widths[widths > 20]  # from the front to the back
    # a disc narrows towards its end, and is cut off where the water ends
    assert inside[:3].mean() > 1.5 * inside[-3:].mean()
