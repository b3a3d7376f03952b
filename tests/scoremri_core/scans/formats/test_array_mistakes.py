"""Arrays with unusual BART headers, permuted axes or data that are not centred k-space."""

import json

import h5py
import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan

NY, NX, COILS, SLICES = 36, 24, 4, 3
LINES = sorted({*range(0, NY, 2), *range(12, 24)})
DIMENSIONS = f"# Dimensions\n{NX} {NY} 1 {COILS} 1 \n"


@pytest.fixture(scope="module")
def full():
    """Fully sampled k-space, (slice, coil, y, x)."""
    return zero_filled_kspace(SimulatedScan((NY, NX), coils=COILS, slices=SLICES))


@pytest.fixture(scope="module")
def kspace(full):
    """Undersampled k-space, (slice, coil, y, x)."""
    undersampled = np.zeros_like(full)
    undersampled[:, :, LINES] = full[:, :, LINES]
    return undersampled


def bart(folder, array, header=None, name="k", suffixes=(".cfl", ".hdr")):
    """Write an array with axes in the order of BART."""
    array.ravel(order="F").astype(np.complex64).tofile(folder / f"{name}{suffixes[0]}")
    sizes = " ".join(map(str, array.shape))
    (folder / f"{name}{suffixes[1]}").write_bytes(
        (header or f"# Dimensions\n{sizes} 1 1 \n").encode()
    )
    return folder / f"{name}{suffixes[0]}"


def bart_order(plane):
    """Permute (coil, y, x) to (x, y, 1, coil)."""
    return plane.transpose(2, 1, 0)[:, :, None]


@pytest.mark.parametrize(
    "header",
    [
        DIMENSIONS,
        f"# Command\nphantom -k k \n{DIMENSIONS}# Files\n >k\n# Creator\nBART v0.9.00\n",
        DIMENSIONS.replace("\n", "\r\n"),
        DIMENSIONS.rstrip(),
    ],
)
@pytest.mark.parametrize("suffixes", [(".cfl", ".hdr"), (".CFL", ".hdr"), (".CFL", ".HDR")])
def test_bart_headers_are_read(tmp_path, kspace, header, suffixes):
    path = bart(tmp_path, bart_order(kspace[0]), header, suffixes=suffixes)
    with open_any(path) as scan:
        np.testing.assert_array_equal(zero_filled_kspace(scan)[0], kspace[0])
    with open_any(path.with_suffix(suffixes[1])) as scan:
        assert len(scan) == len(LINES)


def test_readout_in_the_second_dimension_is_detected_without_a_sidecar(tmp_path, kspace, caplog):
    path = bart(tmp_path, bart_order(kspace[0]).swapaxes(0, 1))
    with open_any(path) as scan:
        np.testing.assert_array_equal(zero_filled_kspace(scan)[0], kspace[0])
    assert "assuming that dimension 1 is the readout" in caplog.text
    path.with_suffix(".json").write_text(json.dumps({"field_of_view": [200, 300, 5]}))
    with open_any(path) as scan:
        assert zero_filled_kspace(scan)[0].shape == (COILS, NX, NY)


@pytest.mark.parametrize("which", ["coils", "slices"])
def test_coils_or_slices_in_the_partition_dimension_are_an_error(tmp_path, kspace, which):
    array = kspace[0].transpose(2, 1, 0)
    if which == "slices":
        array = kspace.transpose(3, 2, 0, 1)
    path = bart(tmp_path, array)
    with (
        pytest.raises(InputError, match=r"k\.hdr: the \d entries .* coils and slices"),
        open_any(path),
    ):
        pass


def volume():
    z = np.hanning(8)[:, None, None]
    scan = SimulatedScan((NY, NX), coils=1)
    return to_kspace(scan.image * z, axes=(0, 1, 2))[None]


def test_volume_of_one_coil_is_read(tmp_path):
    full = volume()
    path = bart(tmp_path, full.transpose(3, 2, 1, 0))
    with open_any(path) as scan:
        assert scan.header.encoding[0].encodedSpace.matrixSize.z == full.shape[1]


MISTAKES = {
    "DC is at the edge of axis y": lambda k: np.fft.ifftshift(k, axes=-2),
    "DC is at the edge of axis x": lambda k: np.fft.ifftshift(k, axes=-1),
    "axis y is of an image": to_image,
}


@pytest.mark.parametrize("words", MISTAKES)
@pytest.mark.parametrize("kind", ["bart", "numpy", "fastmri"])
def test_data_that_are_not_centred_kspace_are_an_error(tmp_path, full, words, kind):
    wrong = MISTAKES[words](full).astype(np.complex64)
    if kind == "bart":
        path = bart(tmp_path, bart_order(wrong[0]))
    elif kind == "numpy":
        path = tmp_path / "k.npy"
        np.save(path, wrong[0])
        sidecar = {"axes": ["coil", "y", "x"], "field_of_view": [200, 300, 5]}
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    else:
        path = tmp_path / "k.h5"
        with h5py.File(path, "w") as file:
            file["kspace"] = wrong.swapaxes(2, 3)
    with pytest.raises(InputError, match=f"{words}: expected"), open_any(path):
        pass


def test_bart_raw_array_error_names_the_conversion(tmp_path):
    (tmp_path / "k.ra").write_bytes(b"rawarray" + bytes(100))
    with (
        pytest.raises(InputError, match=r"k\.ra: a RawArray .*bart copy"),
        open_any(tmp_path / "k.ra"),
    ):
        pass


HEADER = """<m:ismrmrdHeader xmlns:m="http://www.ismrm.org/ISMRMRD">
<m:measurementInformation><m:protocolName>T1</m:protocolName></m:measurementInformation>
<m:acquisitionSystemInformation><m:systemFieldStrength_T>0.3</m:systemFieldStrength_T>
</m:acquisitionSystemInformation>{conditions}<m:encoding>{space}
<m:trajectory>cartesian</m:trajectory></m:encoding>
<m:sequenceParameters><m:echo_spacing>18.4ms</m:echo_spacing></m:sequenceParameters>
</m:ismrmrdHeader>"""
CONDITIONS = """<m:experimentalConditions>
<m:H1resonanceFrequency_Hz>{}</m:H1resonanceFrequency_Hz></m:experimentalConditions>"""
SPACE = """<m:{0}><m:matrixSize><m:x>24</m:x><m:y>36</m:y><m:z>1</m:z></m:matrixSize>
<m:fieldOfView_mm><m:x>48</m:x><m:y>72</m:y><m:z>5</m:z></m:fieldOfView_mm></m:{0}>"""
SPACES = SPACE.format("encodedSpace") + SPACE.format("reconSpace") + "<m:encodingLimits/>"


@pytest.mark.parametrize(
    ("space", "conditions", "fov", "frequency"),
    [
        (SPACES, CONDITIONS.format(12_800_000), 48, 12_800_000),
        ("", CONDITIONS.format(12_800_000), 24, 12_800_000),
        (SPACES, "", 48, 63_866_218),
        (SPACES, CONDITIONS.format("0.3 T"), 48, 63_866_218),
    ],
)
def test_partly_valid_header_is_completed_with_nominal_values(
    tmp_path, kspace, caplog, space, conditions, fov, frequency
):
    """As in M4Raw; the missing fields are logged."""
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace.swapaxes(2, 3)
        file["ismrmrd_header"] = HEADER.format(space=space, conditions=conditions)
    with open_any(tmp_path / "k.h5") as scan:
        np.testing.assert_array_equal(zero_filled_kspace(scan), kspace)
        assert scan.header.encoding[0].encodedSpace.fieldOfView_mm.x == fov
        assert scan.header.acquisitionSystemInformation.systemFieldStrength_T == 0.3
        assert scan.header.experimentalConditions.H1resonanceFrequency_Hz == frequency
    for words in ("lacks 'patientPosition' in measurementInformation", "echo_spacing", "18.4ms"):
        assert words in caplog.text
    assert ("'0.3 T': expected a whole number" in caplog.text) == ("0.3 T" in conditions)
    assert ("assuming pixels of 1 mm" in caplog.text) == (fov == 24)
