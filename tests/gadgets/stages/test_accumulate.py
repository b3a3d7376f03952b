"""Completeness of frames; calibration, noise and other non-imaging lines."""

import ismrmrd
import numpy as np
import pytest
import synthetic
from synthetic import acquisitions, expected, header, letter, measured_noise, parsed

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.mri.sampling import calibration_extent
from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.simulation.undersampling import accelerate


def frames(readouts, xml, **properties):
    return list(accumulate(iter(readouts), parsed(xml), Properties(**properties)))


def test_averages_are_averaged():
    image = letter(24, 32)
    first = acquisitions(image, average=0)  # its last line is flagged, but an average follows
    second = acquisitions(3 * image, average=1)
    (frame,) = frames(first + second, header(24, 32, averages=2))
    np.testing.assert_allclose(frame.kspace.array, 2 * expected(image), atol=1e-5)


def test_counters_keep_frames_apart():
    image = letter(24, 32)
    names = ("slice", "contrast", "phase", "repetition", "set")
    scans = [acquisitions(image, last=False, **{name: i + 1}) for i, name in enumerate(names)]
    interleaved = [readout for line in zip(*scans, strict=True) for readout in line]
    result = frames(interleaved, header(24, 32))  # no flags: sent at the end
    assert [frame.index for frame in result] == [0, 1, 2, 3, 4]
    for i, (name, frame) in enumerate(zip(names, result, strict=True)):
        assert [getattr(frame.header.idx, n) for n in names] == [
            i + 1 if n == name else 0 for n in names
        ]
        np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)


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
    for scan in scans:  # some scanners flag the last line of every slice
        scan[-1].set_flag(ismrmrd.ACQ_LAST_IN_REPETITION)
    result = frames([r for line in zip(*scans, strict=True) for r in line], header(24, 32))
    assert [frame.header.idx.slice for frame in result] == [0, 1, 2]
    for frame in result:
        np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)


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
def test_non_imaging_readouts_are_skipped(flag):
    image = letter(24, 32)
    other = acquisitions(9 * image, steps=[12, 3])
    for readout in other:
        readout.set_flag(flag)
    (frame,) = frames(other[:1] + acquisitions(image) + other[1:], header(24, 32))
    np.testing.assert_allclose(frame.kspace.array, expected(image), atol=1e-5)


def flagged(readouts, flag, steps):
    for readout in readouts:
        if readout.idx.kspace_encode_step_1 in steps:
            readout.set_flag(flag)
    return readouts


def test_embedded_calibration_lines_are_imaging_lines():
    image, lattice, block = letter(24, 32), set(range(0, 24, 2)), set(range(8, 16))
    readouts = acquisitions(image, steps=sorted(lattice | block))
    flagged(readouts, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, block - lattice)
    flagged(readouts, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING, block & lattice)
    (frame,) = frames(readouts, header(24, 32, mode="embedded"))
    np.testing.assert_allclose(
        frame.kspace.array, expected(image, np.array(sorted(lattice | block)) - 12), atol=1e-5
    )
    assert frame.autocalibrated
    assert frame.kspace.calibration is None  # part of the k-space


def test_separate_reference_scan_calibrates_its_slice_without_a_frame():
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
            frame.kspace.array, expected(image, np.arange(0, 24, 2) - 12), atol=1e-5
        )
        np.testing.assert_allclose(
            frame.kspace.calibration.array,
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
            frame.kspace.calibration.array, scale * expected(image, np.array(block) - 12), atol=1e-4
        )


def test_noise_scan_is_scaled_by_dwell_and_bandwidth():
    image = letter(24, 32)
    readouts = [synthetic.noise_readout(0.2, dwell=20, samples=20_000), *acquisitions(image)]
    (frame,) = frames(readouts, header(24, 32))
    # dwell time of 5 us instead of 20, receiver with 0.8 of the noise bandwidth
    variance = 2 * 0.2**2 * (20 / 5) / 0.8
    np.testing.assert_allclose(measured_noise(frame), variance * np.eye(4), atol=0.05 * variance)


def test_noise_property():
    image = letter(24, 32)
    readouts = [synthetic.noise_readout(0.2), *acquisitions(image)]
    (estimated,) = frames(readouts, header(24, 32), noise="estimate")
    assert estimated.kspace.noise_covariance is None
    (given,) = frames(readouts, header(24, 32), noise=0.3)
    np.testing.assert_allclose(measured_noise(given), 2 * 0.3**2 * np.eye(4))
    (absent,) = frames(acquisitions(image), header(24, 32), noise="scan")
    assert "noise=scan" in absent.problem


def test_wrong_channel_count_affects_its_frame_only():
    image = letter(24, 32)
    bad = acquisitions(image, slice=0)
    bad[0] = acquisitions(image, coils=3, slice=0, steps=[0], last=False)[0]
    result = frames(bad + acquisitions(image, slice=1), header(24, 32))
    assert result[0].problem == "a readout has 3 channels, expected 4"
    np.testing.assert_allclose(
        result[0].kspace.array, expected(image, np.arange(1, 24) - 12), atol=1e-5
    )
    assert result[1].problem is None


def test_nonfinite_readouts_are_unsampled(caplog):
    image = letter(24, 32)
    readouts = acquisitions(image)
    readouts[3].data[0, 0] = np.nan
    (frame,) = frames(readouts, header(24, 32))
    assert frame.problem is None
    assert "1 readout with non-finite values" in caplog.text
    kept = np.delete(np.arange(24), 3)
    np.testing.assert_allclose(frame.kspace.array, expected(image, kept - 12), atol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(frame.kspace.mask[:, 0]), kept)


def test_other_items_pass():
    waveform = ismrmrd.Waveform.from_array(np.zeros((1, 4), np.uint32))
    readouts = acquisitions(letter(24, 32))
    result = frames([waveform, *readouts], header(24, 32))
    assert result[0] is waveform
    assert len(result) == 2


@pytest.mark.parametrize("calibration", [8, 0])
def test_undersampled_scan_is_one_frame_with_its_calibration(tmp_path, calibration):
    image, path = letter(48, 32), tmp_path / "scan.h5"
    write_scan(path, header(48, 32), acquisitions(image))
    with open_scan(path) as scan:
        thinned = accelerate(scan, "equispaced", 4, calibration, "phase", 0)
        (frame,) = accumulate(thinned, thinned.header, Properties())
    assert frame.problem is None
    kept = np.flatnonzero(frame.kspace.array.any(axis=(0, 2)))
    assert set(range(24 - calibration // 2, 24 + calibration // 2)) <= set(kept)
    assert len(kept) < 20
    np.testing.assert_allclose(frame.kspace.array, expected(image, kept - 24), atol=1e-5)
    assert frame.kspace.calibration is None  # part of the k-space
    assert frame.autocalibrated == bool(calibration)


def test_calibration_lines_without_imaging_lines_are_no_frame(caplog):
    readouts = acquisitions(letter(24, 32), steps=range(8, 16))
    flagged(readouts, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, range(8, 16))
    assert frames(readouts, header(24, 32, mode="embedded")) == []
    assert "without imaging lines" in caplog.text


def test_a_siemens_scan(data_dir):
    with open_scan(data_dir / "raw" / "siemens_R3_14ch_noise_scan.h5") as scan:
        (frame,) = accumulate(scan, scan.header, Properties())
    assert frame.kspace.values.shape == (14, 144, 192)
    assert frame.recon_shape == (144, 192)
    assert frame.field_of_view == (280, 210, 8)
    rows = np.flatnonzero(frame.kspace.array.any(axis=(0, 2)))
    assert (rows[0], rows[-1], len(rows)) == (72 - 54, 72 + 51, 68)
    assert frame.autocalibrated
    extent, _ = calibration_extent(frame.kspace.mask)
    assert (extent.start, extent.stop) == (30 - 54 + 72, 79 - 54 + 72)
    power = (np.abs(frame.kspace.array) ** 2).sum(axis=0)
    assert np.unravel_index(power.argmax(), power.shape) == (72, 96)
    # There, coils far from the bottles hold mostly noise, as predicted by the noise scan.
    edge = frame.kspace.array[:, rows[-3:], :20].reshape(14, -1)
    predicted = np.real(np.diagonal(measured_noise(frame)))
    ratio = np.sort((np.abs(edge) ** 2).mean(axis=1) / predicted)
    np.testing.assert_allclose(ratio[:4], 1, atol=0.35)
