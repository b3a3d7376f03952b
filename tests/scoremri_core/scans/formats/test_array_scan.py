"""Noise and reference scans, truncated files, undersampled arrays in the stream."""

import json

import numpy as np
import pytest

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.scans.flags import CALIBRATION, NOISE
from scoremri_core.scans.formats.opening import open_any


def kspace(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def save(path, axes=("coil", "y", "x"), **arrays):
    np.savez(path, **arrays)
    sidecar = {"axes": axes, "field_of_view": [240, 400, 5], "sample_time_us": 5}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def frames(path, tmp_path):
    """Return the frames of the stream for a file converted to ISMRMRD."""
    with open_any(path) as scan:
        write_scan(tmp_path / "written.h5", scan.header, scan)
    with open_scan(tmp_path / "written.h5") as scan:
        return list(accumulate(scan, scan.header, Properties()))


def test_a_separate_reference_and_noise(tmp_path):
    image, reference, noise = kspace(3, 40, 24), kspace(3, 8, 24, seed=1), kspace(3, 500, seed=2)
    image[:, 1::2] = 0
    path = save(tmp_path / "k.npz", kspace=image, calibration=reference, noise=noise)
    with open_any(path) as scan:
        readouts = list(scan)
        parallel = scan.header.encoding[0].parallelImaging
    assert [readout.flags for readout in readouts[:9]] == [NOISE] + [CALIBRATION] * 8
    np.testing.assert_array_equal(readouts[0].data, noise)
    assert parallel.calibrationMode.value == "separate"
    assert parallel.accelerationFactor.kspace_encoding_step_1 == 2
    (frame,) = frames(path, tmp_path)
    np.testing.assert_allclose(frame.kspace.array, image, rtol=1e-6)
    np.testing.assert_allclose(frame.kspace.calibration.array[:, 16:24], reference)
    expected = noise @ noise.conj().T / noise.shape[1]
    np.testing.assert_allclose(
        frame.kspace.noise_covariance * frame.kspace.unit**2, expected, rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize("kept", [range(0, 40, 3), range(0, 40, 2), range(14, 26)])
def test_unsampled_lines_stay_unsampled_in_the_stream(tmp_path, kept):
    image = kspace(2, 3, 40, 24)
    image[:, :, [line for line in range(40) if line not in kept]] = 0
    path = save(tmp_path / "k.npz", ("slice", "coil", "y", "x"), kspace=image)
    found = frames(path, tmp_path)
    np.testing.assert_allclose([frame.kspace.array for frame in found], image, rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": kspace(3, 8, 8)}, "no array 'kspace' among other"),
        (
            {"kspace": kspace(3, 8, 8), "noise": kspace(2, 99)},
            ".coil, sample. with 3 coils",
        ),
        ({"kspace": kspace(3, 8, 8), "calibration": kspace(3, 9, 8)}, "expected at most"),
        ({"kspace": kspace(3, 8, 8), "calibration": kspace(2, 4, 8)}, "with as many coils"),
    ],
)
def test_parts_of_other_shapes_are_refused(tmp_path, arrays, message):
    path = save(tmp_path / "k.npz", **arrays)
    with pytest.raises(InputError, match=message), open_any(path):
        pass


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("old.mat", b"MATLAB 5.0 MAT-file", "a MATLAB file"),
        ("scan.mrd", b"yardl\x01", "scoremri stream"),
    ],
)
def test_matlab_and_mrd_v2_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message), open_any(tmp_path / name):
        pass


@pytest.mark.parametrize("length", [20_000, 1_400_003])
def test_truncated_twix_is_refused(data_dir, tmp_path, length):
    pytest.importorskip("twixtools")
    whole = (data_dir / "raw" / "siemens_twix_gre.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[:length])
    with pytest.raises(InputError, match=r"cut\.dat"), open_any(tmp_path / "cut.dat"):
        pass


@pytest.mark.parametrize("start", [9_000, 900_003, 994_406, 1_651_136])
def test_twix_that_ends_in_zeros_is_refused(data_dir, tmp_path, start):
    """Space reserved by an incomplete copy gives an error, not an image of zeros."""
    pytest.importorskip("twixtools")
    whole = (data_dir / "raw" / "siemens_twix_gre.dat").read_bytes()
    (tmp_path / "early.dat").write_bytes(whole[:start] + bytes(len(whole) - start))
    with pytest.raises(InputError, match=r"early\.dat"), open_any(tmp_path / "early.dat"):
        pass


def test_twix_without_end_block_is_read_with_a_warning(data_dir, tmp_path, caplog):
    """Complete lines are used, with a warning."""
    pytest.importorskip("twixtools")
    whole = (data_dir / "raw" / "siemens_twix_16ch_128x128.dat").read_bytes()
    (tmp_path / "aborted.dat").write_bytes(whole[: 1_179_136 + 100 * 17_088])
    with open_any(tmp_path / "aborted.dat") as scan:
        assert len(list(scan)) == 100
    assert "aborted.dat: Siemens raw data without end block" in caplog.text


def test_noise_of_a_preceding_measurement_and_flags(data_dir, tmp_path):
    """Two measurements written by twixtools."""
    twixtools = pytest.importorskip("twixtools")
    path = str(data_dir / "raw" / "siemens_twix_gre.dat")
    first = twixtools.read_twix(path, verbose=False)[-1]
    noise = [block.convert_to_local() for block in first["mdb"][:3]]
    for block in noise:
        block.set_flags(["ONLINE", "NOISEADJSCAN"])
    lines = [block.convert_to_local() for block in first["mdb"]]
    lines[0].set_flags(["ONLINE", "PATREFSCAN"])
    lines[80].set_flags(["ONLINE", "PATREFSCAN", "PATREFANDIMASCAN"])
    # another dwell time of the noise: 50 us instead of 11.6
    slower = first["hdr_str"].tobytes().replace(b"11600", b"50000")
    scans = [
        {**first, "mdb": noise, "hdr_str": np.frombuffer(slower, "S1")},
        {**first, "mdb": lines},
    ]
    twixtools.write_twix(scans, str(tmp_path / "two.dat"))
    with open_any(tmp_path / "two.dat") as scan:
        flags, dwell = scan.heads()["flags"], scan.heads()["sample_time_us"]
        read = list(scan)
    assert len(read) == 163
    assert (flags[:3] & np.uint64(NOISE) > 0).all()
    assert (flags[3:] & np.uint64(NOISE) == 0).all()
    assert np.flatnonzero(flags & np.uint64(CALIBRATION)).tolist() == [3]
    np.testing.assert_array_equal(read[83].data, lines[80].data)
    np.testing.assert_allclose(dwell, [50] * 3 + [11.6] * 160)
