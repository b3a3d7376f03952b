"""Readouts on the encoded matrix: positions of samples, field of view of images."""

import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, expected, header, letter, parsed

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError


def frames(readouts, xml, **properties):
    return list(accumulate(iter(readouts), parsed(xml), Properties(**properties)))


@pytest.mark.parametrize("shape", [(24, 32), (23, 32), (24, 31), (23, 31)])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_dc_is_centred_and_oversampling_removed(shape, oversampling):
    image = letter(*shape)
    readouts = acquisitions(image, oversampling=oversampling)
    (frame,) = frames(readouts, header(*shape, oversampling=oversampling))
    np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)
    assert frame.recon_shape == shape
    assert frame.fov_fraction == (1, 1)
    assert frame.field_of_view == (3 * shape[1], 2 * shape[0], 5)
    assert frame.problem is None


@pytest.mark.parametrize(("ny", "center", "steps"), [(24, 7, 18), (23, 5, 15)])
def test_partial_coverage_with_an_offset_centre(ny, center, steps):
    image = letter(ny, 32)
    readouts = acquisitions(image, oversampling=2, center=center, steps=range(steps))
    xml = header(ny, 32, oversampling=2, center=center, last=steps - 1)
    (frame,) = frames(readouts, xml)
    np.testing.assert_allclose(
        frame.kspace.array, expected(image, np.arange(steps) - center), atol=1e-5
    )
    assert frame.header.idx.kspace_encode_step_1 == center


def test_missing_samples_of_a_partial_echo_stay_zero():
    image = letter(24, 32)
    samples, center_sample = 48, 16  # of 64, the first 16 missing
    readouts = acquisitions(image, oversampling=2, samples=samples, center_sample=center_sample)
    (frame,) = frames(readouts, header(24, 32, oversampling=2))
    assert not frame.kspace.array[..., :8].any()
    assert np.abs(frame.kspace.array[..., 8:]).max(axis=(0, 1)).all()
    truth = expected(image)
    np.testing.assert_allclose(
        frame.kspace.array[..., 12:], truth[..., 12:], atol=0.1 * truth.max().real
    )


def test_center_sample_zero_means_not_given():
    image = letter(24, 32)
    readouts = acquisitions(image, oversampling=2)
    for readout in readouts:
        readout.center_sample = 0
    (frame,) = frames(readouts, header(24, 32, oversampling=2))
    np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)


def test_discarded_samples_are_not_used():
    image = letter(24, 32)
    padded = []
    for readout in acquisitions(image):
        data = np.pad(readout.data, ((0, 0), (5, 3)), constant_values=1e6)
        longer = ismrmrd.Acquisition(readout.getHead(), data.astype(np.complex64))
        longer.resize(40, 4)
        longer.data[:] = data
        longer.discard_pre, longer.discard_post = 5, 3
        longer.center_sample = 16 + 5
        padded.append(longer)
    (frame,) = frames(padded, header(24, 32))
    np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)


@pytest.mark.parametrize(("samples", "center_sample"), [(64, 32), (63, 31), (48, 16)])
def test_reversed_readouts_are_flipped(samples, center_sample):
    image = letter(24, 32)
    kind = {"oversampling": 2, "samples": samples, "center_sample": center_sample}
    forward, mirrored = acquisitions(image, **kind), acquisitions(image, **kind)
    for readout in mirrored[::2]:
        readout.data[:] = readout.data[:, ::-1].copy()
        readout.set_flag(ismrmrd.ACQ_IS_REVERSE)
        readout.center_sample = samples - 1 - center_sample
    xml = header(24, 32, oversampling=2)
    (plain,), (flipped,) = frames(forward, xml), frames(mirrored, xml)
    np.testing.assert_array_equal(flipped.kspace.array, plain.kspace.array)


def test_matrix_too_large_for_the_coils_is_refused():
    readouts = acquisitions(letter(24, 32), coils=64)
    with pytest.raises(InputError, match="64 channels and a matrix of 8192 x 8192 x 1"):
        frames(readouts, header(8192, 8192))


def test_lines_outside_of_the_matrix_are_dropped_with_a_warning(caplog):
    image = letter(24, 32)
    readouts = acquisitions(image)
    readouts[3].idx.kspace_encode_step_1 = 60
    (frame,) = frames(readouts, header(24, 32))
    assert frame.problem is None
    left = np.delete(np.arange(24), 3) - 12
    np.testing.assert_allclose(frame.kspace.array, expected(image, left), atol=1e-5)
    assert "1 readout outside of the encoded matrix of 32 x 24 x 1" in caplog.text


def test_frame_without_lines_inside_the_matrix_has_a_problem():
    readouts = acquisitions(letter(24, 32))
    for readout in readouts:
        readout.idx.kspace_encode_step_1 = 60
    (frame,) = frames(readouts, header(24, 32))
    assert "all readouts are outside" in frame.problem


@pytest.mark.parametrize("noted", [10, 0])
def test_centre_is_found_among_the_calibration_lines(noted, caplog):
    """The header has DC in line 20; it is in line 10 of calibration lines 6 to 14."""
    readouts = acquisitions(letter(24, 32))
    for step, readout in enumerate(readouts):
        readout.idx.kspace_encode_step_1 = max(step - 2, 0)  # DC of the letter is in line 12
        readout.idx.user[5] = noted
        if 6 <= step - 2 <= 14:
            readout.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    (frame,) = frames(readouts[2:], header(24, 32, center=20))
    whole = expected(letter(24, 32), np.arange(2, 24) - 12)
    np.testing.assert_allclose(frame.kspace.array, whole, atol=1e-5)
    assert "using line 10" in caplog.text


def test_echoes_without_a_counter_are_separate_frames(caplog):
    image = letter(24, 32)
    echoes = [acquisitions(image * factor, last=False) for factor in (1, 0.6, 0.3)]
    readouts = [readout for lines in zip(*echoes, strict=True) for readout in lines]
    readouts[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    found = frames(readouts, header(24, 32))
    assert [frame.header.idx.contrast for frame in found] == [0, 1, 2]
    for frame, factor in zip(found, (1, 0.6, 0.3), strict=True):
        np.testing.assert_allclose(frame.kspace.array, factor * expected(image), atol=1e-5)
        assert frame.problem is None
    assert "72 readouts at 24 positions differ: separating them into 3 images" in caplog.text


def with_trajectory(readouts, first_line):
    """Move the line numbers of readouts to their trajectory, in cycles per pixel."""
    found = []
    for number, readout in enumerate(readouts):
        samples = readout.data.shape[1]
        trajectory = np.full((samples, 2), (first_line + number - 12) / 24, np.float32)
        trajectory[:, 0] = (np.arange(samples) - samples // 2) / samples
        placed = ismrmrd.Acquisition.from_array(readout.data, trajectory)
        placed.flags, placed.center_sample = readout.flags, readout.center_sample
        found.append(placed)
    return found


@pytest.mark.parametrize("last", [0, 23])
def test_lines_from_the_trajectory_only(last):
    """With a reference scan of the central lines and limits without information."""
    image = letter(24, 32)
    reference = with_trajectory(acquisitions(image, steps=range(8, 16), oversampling=2), 8)
    for readout in reference:
        readout.clearAllFlags()
        readout.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    lines = with_trajectory(acquisitions(image, oversampling=2), 0)
    xml = header(24, 32, oversampling=2, last=last, center=(last + 1) // 2, mode="separate")
    (frame,) = frames([*reference, *lines], xml)
    assert frame.problem is None
    np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)
    found = frame.kspace.calibration.array
    np.testing.assert_allclose(found, expected(image, range(-4, 4)), atol=1e-5)


def test_single_partition_is_a_2d_scan():
    scan = header(24, 32).replace("<z>1</z>", "<z>2</z>", 1)  # of the encoded matrix
    (frame,) = frames(acquisitions(letter(24, 32)), scan)
    (plain,) = frames(acquisitions(letter(24, 32)), header(24, 32))
    assert not frame.is_volume
    np.testing.assert_array_equal(frame.kspace.array, plain.kspace.array)


def test_phase_oversampling_and_interpolation_are_described():
    xml = header(24, 32, ry=40, gy=40, rx=64)  # 40 of 48 mm, on 40 x 64 pixels
    (frame,) = frames(acquisitions(letter(24, 32)), xml)
    assert frame.recon_shape == (40, 64)
    assert frame.fov_fraction == pytest.approx((40 / 48, 1))
    assert frame.kspace.values.shape == (4, 24, 32)


def volume(slices, lines=None, **options):
    """Return the readouts of a volume (z, y, x) by partition, at the `lines` (z, y) only."""
    nz, ny = len(slices), slices.shape[1]
    depth = np.arange(nz) - nz // 2
    readouts = []
    for partition in range(nz):
        wave = np.exp(-2j * np.pi * depth * depth[partition] / nz) / np.sqrt(nz)
        steps = np.arange(ny) if lines is None else np.flatnonzero(lines[partition])
        if len(steps):
            image = np.tensordot(wave, slices, 1)
            readouts += acquisitions(
                image, steps=steps, last=False, kspace_encode_step_2=partition, **options
            )
    readouts[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    return readouts


@pytest.mark.parametrize(("ny", "nx", "nz"), [(16, 20, 6), (15, 21, 5)])
def test_a_volume_is_kspace_with_partitions(ny, nx, nz):
    slices = np.stack([letter(ny, nx) * (z + 1) for z in range(nz)])
    lines = np.random.default_rng(0).uniform(size=(nz, ny)) < 0.5
    (frame,) = frames(volume(slices, lines, oversampling=2), header(ny, nx, ez=nz, oversampling=2))
    z = np.arange(nz) - nz // 2
    along_z = np.exp(-2j * np.pi * np.outer(z, z) / nz) / np.sqrt(nz)
    truth = np.einsum("kz,zcyx->ckyx", along_z, np.stack([expected(image) for image in slices]))
    np.testing.assert_allclose(frame.kspace.array, truth * lines[..., None], atol=1e-4)
    assert frame.problem is None
    assert frame.recon_shape == (nz, ny, nx)
    assert frame.fov_fraction == (1, 1, 1)


def test_partitions_outside_of_the_limits_are_slices():
    """Some scanners store the number of slices in the z of the matrix."""
    xml = header(24, 32, ez=5).replace(
        "<average>",
        "<kspace_encoding_step_2><minimum>0</minimum><maximum>0</maximum><center>0</center>"
        "</kspace_encoding_step_2><average>",
    )
    readouts = acquisitions(letter(24, 32), slice=3)
    (frame,) = frames(readouts, xml)
    np.testing.assert_allclose(frame.kspace.array, expected(letter(24, 32)), atol=1e-5)


def test_trajectories_other_than_cartesian_are_refused():
    with pytest.raises(InputError, match=r"trajectory radial: expected one of .*cartesian"):
        frames([], header(24, 32, trajectory="radial"))
