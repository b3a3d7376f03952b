"""Round trips of k-space through formats, and comparison with other readers."""

import json
import shutil
import struct
import subprocess

import h5py
import numpy as np
import pytest
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.scans.files import write_scan
from scoremri_core.scans.flags import CALIBRATION_AND_IMAGING
from scoremri_core.scans.formats.bart import read_array
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.formats.recognise import recognise
from scoremri_core.scans.formats.saving import save_array
from scoremri_core.scans.gridding import fully_sampled_kspace, zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan

SCAN = SimulatedScan((24, 16), coils=2, slices=3)


@pytest.fixture(scope="module")
def kspace():
    return zero_filled_kspace(SCAN)


@pytest.mark.parametrize("suffix", [".cfl", ".npy"])
def test_scan_is_restored_from_an_array(tmp_path, kspace, suffix):
    path = tmp_path / f"k{suffix}"
    (tmp_path / "k.json").touch()
    with pytest.raises(InputError, match=r"k\.json: already exists"):
        save_array(path, SCAN, overwrite=False)
    save_array(path, SCAN, overwrite=True)
    np.testing.assert_array_equal(fully_sampled_kspace(path), kspace)
    with open_any(path) as back:
        heads, expected = back.heads(), SCAN.heads()
        recon = back.header.encoding[0].reconSpace
        assert back.header.encoding[0].parallelImaging is None
        write_scan(tmp_path / "back.h5", back.header, back)
    expected = expected[expected["idx"]["kspace_encode_step_1"] == 3]
    heads = heads[heads["idx"]["kspace_encode_step_1"] == 3]
    for name in ("position", "read_dir", "phase_dir", "slice_dir"):
        np.testing.assert_allclose(heads[name], expected[name], atol=1e-5)
    assert recon == SCAN.header.encoding[0].reconSpace
    np.testing.assert_array_equal(fully_sampled_kspace(tmp_path / "back.h5"), kspace)


@pytest.mark.skipif(shutil.which("bart") is None, reason="no BART")
def test_bart_reconstructs_the_same_image(tmp_path):
    def bart(*arguments):
        subprocess.run(["bart", *arguments], cwd=tmp_path, check=True, capture_output=True)

    bart("phantom", "-k", "-s", "3", "-x", "24", "k")
    bart("fft", "-i", "-u", "3", "k", "image")
    from scoremri_core.mri.fourier import to_image

    theirs = np.squeeze(read_array(tmp_path / "image.hdr")).transpose(2, 1, 0)
    ours = to_image(fully_sampled_kspace(tmp_path / "k.cfl")[0])
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    with open_any(tmp_path / "k") as scan:
        save_array(tmp_path / "again.cfl", scan, overwrite=False)
    bart("nrmse", "-t", "0.000001", "k", "again")


def fastmri(path, kspace, encoded, mask=None):
    """Write a fastMRI file: (slice, coil, readout, phase), with an ISMRMRD header."""
    header = SimulatedScan((24, 16), coils=2).header
    space = header.encoding[0].encodedSpace
    space.matrixSize.x, space.matrixSize.y = encoded
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = xsd.ToXML(header)
        if mask is not None:
            file["mask"] = mask


def test_readout_of_fastmri_is_along_the_rows(tmp_path):
    rng = np.random.default_rng(0)
    lines = rng.normal(size=(2, 2, 24, 32)) + 1j * rng.normal(size=(2, 2, 24, 32))
    lines = lines.astype(np.complex64)  # (slice, coil, y, x), twice oversampled
    fastmri(tmp_path / "f.h5", lines.swapaxes(2, 3), (32, 24))
    fastmri(tmp_path / "g.h5", lines, (32, 24))
    assert recognise(tmp_path / "f.h5") == "fastmri"
    for name in ("f.h5", "g.h5"):
        with open_any(tmp_path / name) as scan:
            readouts = list(scan)
            head = readouts[25].getHead()
            np.testing.assert_array_equal(readouts[25].data, lines[1, :, 1])
            assert (head.idx.slice, head.idx.kspace_encode_step_1) == (1, 1)
    assert fully_sampled_kspace(tmp_path / "f.h5").shape == (2, 2, 24, 16)


def test_mask_of_fastmri_excludes_lines_and_its_centre_is_calibration(tmp_path):
    mask = np.zeros(24, bool)
    mask[::4] = mask[8:16] = True
    fastmri(tmp_path / "f.h5", np.ones((1, 2, 32, 24), np.complex64), (32, 24), mask)
    with open_any(tmp_path / "f.h5") as scan:
        heads, encoding = scan.heads(), scan.header.encoding[0]
    steps = heads["idx"]["kspace_encode_step_1"]
    np.testing.assert_array_equal(steps, np.flatnonzero(mask))
    flagged = heads["flags"] & np.uint64(CALIBRATION_AND_IMAGING) != 0
    assert steps[flagged].tolist() == [*range(8, 17)]  # 16 is of the lattice, without a gap
    assert encoding.parallelImaging.accelerationFactor.kspace_encoding_step_1 == 4
    limits = encoding.encodingLimits.kspace_encoding_step_1
    assert (limits.minimum, limits.center, limits.maximum) == (0, 12, 20)


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        (None, "no side-car"),
        ("{", "not readable as JSON"),
        ({"axes": ["coil", "y", "x"]}, "'field_of_view' is missing"),
        ({"axes": ["y", "x"], "field_of_view": [1, 1, 1]}, "expected coil, y and x"),
        ({"axes": ["coil", "y", "x"], "field_of_view": [1, 0, 1]}, "in mm, positive"),
        ({"axes": ["coil", "y", "x"], "field_of_view": [1, 1, 1], "tr": 3}, "unknown name 'tr'"),
        ({"axes": ["coil", "z", "y", "x"], "field_of_view": [1, 1, 1]}, "with the axes"),
        (
            {"axes": ["coil", "y", "x"], "field_of_view": [1, 1, 1], "read_dir": [1, 1, 0]},
            "unit vectors",
        ),
    ],
)
def test_invalid_side_car_is_an_error(tmp_path, sidecar, message):
    np.save(tmp_path / "k.npy", np.ones((2, 8, 8), np.complex64))
    if sidecar is not None:
        text = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
        (tmp_path / "k.json").write_text(text)
    with pytest.raises(InputError, match=message), open_any(tmp_path / "k.npy"):
        pass


def test_side_car_in_yaml(tmp_path):
    pytest.importorskip("yaml")
    np.save(tmp_path / "k.npy", np.ones((8, 6, 2), np.complex64))
    (tmp_path / "k.yaml").write_text("axes: [y, x, coil]\nfield_of_view: [60, 80, 5]\n")
    with open_any(tmp_path / "k.npy") as scan:
        size = scan.header.encoding[0].encodedSpace.matrixSize
        assert (len(scan), size.x, size.y) == (8, 6, 8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.dcm", b"\0" * 128 + b"DICM", "DICOM, images"),
        ("a.nii", struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0", "NIfTI, images"),
        ("P00001.7", b"\0" * 34 + b"GE_MED_NMR\0", "GE raw data .* ge_to_ismrmrd"),
        ("a.list", b"# === DATA DESCRIPTION FILE", "Philips raw data .* philips_to_ismrmrd"),
        ("a.lab", b"\1" * 64, "Philips raw data .* philips_to_ismrmrd"),
        ("acqp", b"##TITLE=Parameter List, ParaVision 6", "Bruker .* bruker_to_ismrmrd"),
        ("a.cfl", b"\0" * 64, "without its .hdr"),
    ],
)
def test_unsupported_format_is_named_with_its_converter(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*{message}"), open_any(tmp_path / name):
        pass


@pytest.mark.parametrize("name", ["siemens_twix_gre.dat", "siemens_twix_16ch_128x128.dat"])
def test_twix_matches_another_reader(data_dir, name):
    pytest.importorskip("twixtools")
    path = data_dir / "raw" / name
    with open_any(path) as scan:
        readouts, encoding = list(scan), scan.header.encoding[0]
    lines, centre = readouts[80], readouts[80].getHead()
    # slice normal of the protocol against that of the quaternion
    axes = np.array([centre.read_dir, centre.phase_dir, centre.slice_dir])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-5)
    if name == "siemens_twix_gre.dat":
        np.testing.assert_allclose(centre.slice_dir, [0, 0.0383878, 0.9992630], atol=1e-5)
        np.testing.assert_allclose(centre.position, [-2.5897, 53.92242, -53.99947], atol=1e-4)
        assert (encoding.encodedSpace.matrixSize.x, encoding.reconSpace.matrixSize.x) == (320, 160)
        assert encoding.encodedSpace.fieldOfView_mm.x == 400
    image = np.linalg.norm(np.fft.ifft2(fully_sampled_kspace(path)[0]), axis=0)
    assert image.shape == ((160, 160) if name == "siemens_twix_gre.dat" else (128, 128))
    mapvbvd = pytest.importorskip("mapvbvd")
    theirs = mapvbvd.mapVBVD(str(path), quiet=True)
    theirs = theirs[-1] if isinstance(theirs, list) else theirs
    theirs.image.flagRemoveOS = False
    theirs.image.squeeze = True
    values = theirs.image[""]  # (readout, coil, line)
    np.testing.assert_array_equal(lines.data, values[:, :, 80].T)


def test_damaged_twix_file_is_named(data_dir, tmp_path):
    pytest.importorskip("twixtools")
    whole = (data_dir / "raw" / "siemens_twix_gre.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[:200_000])
    with pytest.raises(InputError, match=r"cut\.dat: .*Siemens"), open_any(tmp_path / "cut.dat"):
        pass
