import ismrmrd
import numpy as np
import pytest
import synthetic
from synthetic import acquisitions, header, letter, parsed

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.scans.undersampling import accelerate


def frames(readouts, xml, **properties):
    return list(accumulate(iter(readouts), parsed(xml), Properties(**properties)))


def expected(image, ky=None, coils=4):
    """k-space (coil, y, x) without oversampling, DC at n // 2, by summing over pixels."""
    ny, nx = image.shape
    maps = synthetic.coil_maps(coils, ny, nx)
    ksp = synthetic.kspace(maps * image, np.arange(ny) - ny // 2, np.arange(nx) - nx // 2)
    if ky is not None:
        absent = np.setdiff1d(np.arange(ny), np.asarray(ky) + ny // 2)
        ksp[:, absent] = 0
    return ksp


@pytest.mark.parametrize("shape", [(24, 32), (23, 32), (24, 31), (23, 31)])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_dc_is_central_and_oversampling_gone(shape, oversampling):
    image = letter(*shape)
    readouts = acquisitions(image, oversampling=oversampling)
    (frame,) = frames(readouts, header(*shape, oversampling=oversampling))
    np.testing.assert_allclose(frame.kspace, expected(image), atol=1e-5)
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
    np.testing.assert_allclose(frame.kspace, expected(image, np.arange(steps) - center), atol=1e-5)
    assert frame.header.idx.kspace_encode_step_1 == center


def test_partial_echo_stays_unmeasured_where_it_is():
    image = letter(24, 32)
    samples, center_sample = 48, 16  # of 64, the first 16 missing
    readouts = acquisitions(image, oversampling=2, samples=samples, center_sample=center_sample)
    (frame,) = frames(readouts, header(24, 32, oversampling=2))
    assert not frame.kspace[..., :8].any()
    assert np.abs(frame.kspace[..., 8:]).max(axis=(0, 1)).all()
    truth = expected(image)
    np.testing.assert_allclose(frame.kspace[..., 12:], truth[..., 12:], atol=0.1 * truth.max().real)


def test_center_sample_zero_is_not_given():
    image = letter(24, 32)
    readouts = acquisitions(image, oversampling=2)
    for readout in readouts:
        readout.center_sample = 0
    (frame,) = frames(readouts, header(24, 32, oversampling=2))
    np.testing.assert_allclose(frame.kspace, expected(image), atol=1e-5)


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
    np.testing.assert_allclose(frame.kspace, expected(image), atol=1e-5)


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
    np.testing.assert_array_equal(flipped.kspace, plain.kspace)


def test_averages_are_averaged():
    image = letter(24, 32)
    first = acquisitions(image, average=0)  # its last line is flagged, but an average follows
    second = acquisitions(3 * image, average=1)
    (frame,) = frames(first + second, header(24, 32, averages=2))
    np.testing.assert_allclose(frame.kspace, 2 * expected(image), atol=1e-5)


def test_counters_keep_frames_apart():
    image = letter(24, 32)
    names = ("slice", "contrast", "phase", "repetition", "set")
    scans = [acquisitions(image, last=False, **{name: i + 1}) for i, name in enumerate(names)]
    interleaved = [readout for line in zip(*scans, strict=True) for readout in line]
    result = frames(interleaved, header(24, 32))  # no flag at all: sent at the end
    assert [frame.index for frame in result] == [0, 1, 2, 3, 4]
    for i, (name, frame) in enumerate(zip(names, result, strict=True)):
        assert [getattr(frame.header.idx, n) for n in names] == [
            i + 1 if n == name else 0 for n in names
        ]
        np.testing.assert_allclose(frame.kspace, expected(image), atol=1e-5)


def test_frames_are_sent_as_they_are_complete():
    image = letter(24, 32)
    readouts = acquisitions(image, slice=0) + acquisitions(image, slice=1)
    seen = []

    def stream():
        for i, readout in enumerate(readouts):
            seen.append(i)
            yield readout

    first = next(accumulate(stream(), parsed(header(24, 32)), Properties()))
    assert first.header.idx.slice == 0
    assert len(seen) == 24


def test_interleaved_slices_end_with_the_repetition():
    image = letter(24, 32)
    scans = [acquisitions(image, last=False, slice=s) for s in range(3)]
    for scan in scans:  # as some scanners flag it: the last line of every slice
        scan[-1].set_flag(ismrmrd.ACQ_LAST_IN_REPETITION)
    result = frames([r for line in zip(*scans, strict=True) for r in line], header(24, 32))
    assert [frame.header.idx.slice for frame in result] == [0, 1, 2]
    for frame in result:
        np.testing.assert_allclose(frame.kspace, expected(image), atol=1e-5)


@pytest.mark.parametrize(
    "flag",
    [
        ismrmrd.ACQ_IS_NAVIGATION_DATA,
        ismrmrd.ACQ_IS_PHASECORR_DATA,
        ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
        ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
        ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
        ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
        ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
        ismrmrd.ACQ_IS_PHASE_STABILIZATION,
        ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    ],
)
def test_what_is_no_imaging_is_skipped(flag):
    image = letter(24, 32)
    other = acquisitions(9 * image, steps=[12, 3])
    for readout in other:
        readout.set_flag(flag)
    (frame,) = frames(other[:1] + acquisitions(image) + other[1:], header(24, 32))
    np.testing.assert_allclose(frame.kspace, expected(image), atol=1e-5)


def flagged(readouts, flag, steps):
    for readout in readouts:
        if readout.idx.kspace_encode_step_1 in steps:
            readout.set_flag(flag)
    return readouts


def test_embedded_calibration_lines_are_imaging_too():
    image, lattice, block = letter(24, 32), set(range(0, 24, 2)), set(range(8, 16))
    readouts = acquisitions(image, steps=sorted(lattice | block))
    flagged(readouts, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, block - lattice)
    flagged(readouts, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING, block & lattice)
    (frame,) = frames(readouts, header(24, 32, mode="embedded"))
    np.testing.assert_allclose(
        frame.kspace, expected(image, np.array(sorted(lattice | block)) - 12), atol=1e-5
    )
    np.testing.assert_allclose(
        frame.calibration, expected(image, np.array(sorted(block)) - 12), atol=1e-5
    )


def test_a_separate_reference_scan_makes_no_frame_and_serves_its_slice():
    image, block = letter(24, 32), range(8, 16)
    reference = []
    for number in range(2):
        lines = acquisitions((number + 1) * image, steps=block, slice=number)
        reference += flagged(lines, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, block)
    imaging = [
        readout
        for repetition in range(2)
        for number in range(2)
        for readout in acquisitions(
            image, steps=range(0, 24, 2), slice=number, repetition=repetition
        )
    ]
    result = frames(reference + imaging, header(24, 32, mode="separate"))
    assert [f.header.idx.slice for f in result] == [0, 1, 0, 1]
    assert [f.header.idx.repetition for f in result] == [0, 0, 1, 1]
    for frame in result:
        np.testing.assert_allclose(
            frame.kspace, expected(image, np.arange(0, 24, 2) - 12), atol=1e-5
        )
        np.testing.assert_allclose(
            frame.calibration,
            (frame.header.idx.slice + 1) * expected(image, np.array(block) - 12),
            atol=1e-5,
        )


def test_a_new_reference_scan_replaces_the_old():
    image, block = letter(24, 32), range(8, 16)

    def both(scale, repetition):
        lines = acquisitions(scale * image, steps=block, repetition=repetition)
        lines = flagged(lines, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, block)
        return lines + acquisitions(image, repetition=repetition)

    result = frames(both(1, 0) + both(5, 1), header(24, 32, mode="separate"))
    for frame, scale in zip(result, (1, 5), strict=True):
        np.testing.assert_allclose(
            frame.calibration, scale * expected(image, np.array(block) - 12), atol=1e-4
        )


def test_noise_scan_is_scaled_by_dwell_and_bandwidth():
    image = letter(24, 32)
    readouts = [synthetic.noise_readout(0.2, dwell=20, samples=20_000), *acquisitions(image)]
    (frame,) = frames(readouts, header(24, 32))
    # data are sampled for 5 us instead of 20, and the receiver passes 0.8 of the noise's band
    variance = 2 * 0.2**2 * (20 / 5) / 0.8
    np.testing.assert_allclose(frame.noise_covariance, variance * np.eye(4), atol=0.05 * variance)


def test_noise_property():
    image = letter(24, 32)
    readouts = [synthetic.noise_readout(0.2), *acquisitions(image)]
    (estimated,) = frames(readouts, header(24, 32), noise="estimate")
    assert estimated.noise_covariance is None
    (given,) = frames(readouts, header(24, 32), noise=0.3)
    np.testing.assert_allclose(given.noise_covariance, 2 * 0.3**2 * np.eye(4))
    (absent,) = frames(acquisitions(image), header(24, 32), noise="scan")
    assert "noise=scan" in absent.problem


def test_wrong_channel_count_marks_the_frame_alone():
    image = letter(24, 32)
    bad = acquisitions(image, slice=0)
    bad[0] = acquisitions(image, coils=3, slice=0, steps=[0], last=False)[0]
    result = frames(bad + acquisitions(image, slice=1), header(24, 32))
    assert result[0].problem == "a readout has 3 channels, expected 4"
    np.testing.assert_allclose(result[0].kspace, expected(image, np.arange(1, 24) - 12), atol=1e-5)
    assert result[1].problem is None


def test_coils_that_leave_no_room_for_the_matrix_are_refused():
    readouts = acquisitions(letter(24, 32), coils=64)
    with pytest.raises(InputError, match="64 channels came for a matrix of 8192 x 8192 x 1"):
        frames(readouts, header(8192, 8192))


def test_lines_outside_of_the_matrix_are_dropped_and_told(caplog):
    image = letter(24, 32)
    readouts = acquisitions(image)
    readouts[3].idx.kspace_encode_step_1 = 60
    (frame,) = frames(readouts, header(24, 32))
    assert frame.problem is None
    left = np.delete(np.arange(24), 3) - 12
    np.testing.assert_allclose(frame.kspace, expected(image, left), atol=1e-5)
    assert "1 readouts lie outside of the encoded matrix of 32 x 24 x 1" in caplog.text


def test_a_frame_of_lines_outside_of_the_matrix_alone_has_a_problem():
    readouts = acquisitions(letter(24, 32))
    for readout in readouts:
        readout.idx.kspace_encode_step_1 = 60
    (frame,) = frames(readouts, header(24, 32))
    assert "all readouts lie outside" in frame.problem


@pytest.mark.parametrize("noted", [10, 0])
def test_the_centre_lies_among_the_calibration_lines(noted, caplog):
    """The header says 20; DC is in line 10 of those flagged 6 to 14."""
    readouts = acquisitions(letter(24, 32))
    for step, readout in enumerate(readouts):
        readout.idx.kspace_encode_step_1 = max(step - 2, 0)  # DC of the letter is in line 12
        readout.idx.user[5] = noted
        if 6 <= step - 2 <= 14:
            readout.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    (frame,) = frames(readouts[2:], header(24, 32, center=20))
    whole = expected(letter(24, 32), np.arange(2, 24) - 12)
    np.testing.assert_allclose(frame.kspace, whole, atol=1e-5)
    assert "line 10 is taken" in caplog.text


def test_one_partition_of_an_image_without_depth_is_a_2d_scan():
    scan = header(24, 32).replace("<z>1</z>", "<z>2</z>", 1)  # of the encoded matrix
    (frame,) = frames(acquisitions(letter(24, 32)), scan)
    (plain,) = frames(acquisitions(letter(24, 32)), header(24, 32))
    assert not frame.is_volume
    np.testing.assert_array_equal(frame.kspace, plain.kspace)


def test_non_finite_values_mark_the_frame():
    readouts = acquisitions(letter(24, 32))
    readouts[3].data[0, 0] = np.nan
    (frame,) = frames(readouts, header(24, 32))
    assert "not finite" in frame.problem


def test_phase_oversampling_and_interpolation_are_described():
    xml = header(24, 32, ry=40, gy=40, rx=64)  # 40 of 48 mm, on 40 x 64 pixels
    (frame,) = frames(acquisitions(letter(24, 32)), xml)
    assert frame.recon_shape == (40, 64)
    assert frame.fov_fraction == pytest.approx((40 / 48, 1))
    assert frame.kspace.shape == (4, 24, 32)


def volume(slices, lines=None, **options):
    """Readouts of a volume (z, y, x) in the order of its partitions, those of `lines` (z, y)."""
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
    np.testing.assert_allclose(frame.kspace, truth * lines[..., None], atol=1e-4)
    assert frame.problem is None
    assert frame.recon_shape == (nz, ny, nx)
    assert frame.fov_fraction == (1, 1, 1)


def test_partitions_that_the_limits_deny_are_slices():
    """Some scanners count their slices in the z of the matrix."""
    xml = header(24, 32, ez=5).replace(
        "<average>",
        "<kspace_encoding_step_2><minimum>0</minimum><maximum>0</maximum><center>0</center>"
        "</kspace_encoding_step_2><average>",
    )
    readouts = acquisitions(letter(24, 32), slice=3)
    (frame,) = frames(readouts, xml)
    np.testing.assert_allclose(frame.kspace, expected(letter(24, 32)), atol=1e-5)


def test_other_items_pass_on():
    waveform = ismrmrd.Waveform.from_array(np.zeros((1, 4), np.uint32))
    readouts = acquisitions(letter(24, 32))
    result = frames([waveform, *readouts], header(24, 32))
    assert result[0] is waveform
    assert len(result) == 2


def test_trajectories_other_than_cartesian_are_refused():
    with pytest.raises(InputError, match=r"trajectory radial: expected one of .*cartesian"):
        frames([], header(24, 32, trajectory="radial"))


@pytest.mark.parametrize("calibration", [8, 0])
def test_undersampled_scans_are_understood(tmp_path, calibration):
    image, path = letter(48, 32), tmp_path / "scan.h5"
    write_scan(path, header(48, 32), acquisitions(image))
    with open_scan(path) as scan:
        thinned = accelerate(scan, "equispaced", 4, calibration, "phase", 0)
        (frame,) = accumulate(thinned, thinned.header, Properties())
    assert frame.problem is None
    kept = np.flatnonzero(frame.kspace.any(axis=(0, 2)))
    assert set(range(24 - calibration // 2, 24 + calibration // 2)) <= set(kept)
    assert len(kept) < 20
    np.testing.assert_allclose(frame.kspace, expected(image, kept - 24), atol=1e-5)
    if calibration:
        lines = np.flatnonzero(frame.calibration.any(axis=(0, 2)))
        np.testing.assert_array_equal(lines, range(20, 28))
    else:
        assert frame.calibration is None


def test_calibration_lines_alone_make_no_frame(caplog):
    readouts = acquisitions(letter(24, 32), steps=range(8, 16))
    flagged(readouts, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, range(8, 16))
    assert frames(readouts, header(24, 32, mode="embedded")) == []
    assert "without imaging lines" in caplog.text


def test_a_siemens_scan(data_dir):
    with open_scan(data_dir / "raw" / "siemens_R3_14ch_noise_scan.h5") as scan:
        (frame,) = accumulate(scan, scan.header, Properties())
    assert frame.kspace.shape == (14, 144, 192)
    assert frame.recon_shape == (144, 192)
    assert frame.field_of_view == (280, 210, 8)
    rows = np.flatnonzero(frame.kspace.any(axis=(0, 2)))
    assert (rows[0], rows[-1], len(rows)) == (72 - 54, 72 + 51, 68)
    lines = np.flatnonzero(frame.calibration.any(axis=(0, 2)))
    np.testing.assert_array_equal(lines, np.arange(30, 78) - 54 + 72)
    power = (np.abs(frame.kspace) ** 2).sum(axis=0)
    assert np.unravel_index(power.argmax(), power.shape) == (72, 96)
    # Coils far from the bottles see little but noise there, which the noise scan foretells.
    edge = frame.kspace[:, rows[-3:], :20].reshape(14, -1)
    foretold = np.real(np.diagonal(frame.noise_covariance))
    ratio = np.sort((np.abs(edge) ** 2).mean(axis=1) / foretold)
    np.testing.assert_allclose(ratio[:4], 1, atol=0.35)
