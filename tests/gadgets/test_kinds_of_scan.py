"""Frames of every kind of Cartesian scan against their known k-space."""

from functools import cache

import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, coil_maps, header, letter, measured_noise, parsed

from gadgets.stages.accumulate import MAX_WAITING, accumulate
from gadgets.stages.coil_compression import compress_coils
from gadgets.stages.coil_maps import add_coil_maps
from gadgets.stages.emit import emit
from gadgets.stages.posterior import posterior
from gadgets.stages.properties import Properties
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.recon.memo import Memo
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate

MATRIX, COILS, QUIET = (24, 20), 3, 1e6


@cache
def flat():
    return SimulatedScan(MATRIX, COILS, slices=2, repetitions=3, snr=QUIET)


@cache
def deep():
    return SimulatedScan((16, 16), 2, partitions=14, repetitions=2, snr=QUIET)


def frames(scan, **properties):
    return list(accumulate(iter(scan), scan.header, Properties(**properties)))


def truth(scan, frame):
    """Return the noise-free, fully sampled k-space of a frame."""
    idx = frame.header.idx
    images = scan.image if len(scan.contrasts) > 1 else scan.image[None]
    if scan.partitions > 1:
        return to_kspace(np.moveaxis(scan.coil_maps, 1, 0) * images[idx.contrast], (-3, -2, -1))
    return to_kspace(scan.coil_maps[idx.slice] * images[idx.contrast, idx.slice])


def counters(frame):
    idx = frame.header.idx
    return idx.slice, idx.contrast, idx.phase, idx.repetition, idx.set


@pytest.mark.parametrize("interleaved", [False, True])
def test_every_counter_in_every_order(interleaved):
    scan = SimulatedScan(
        (16, 16), 2, slices=2, repetitions=2, snr=QUIET, contrast="t1,t2", phases=2, sets=2,
        averages=2, segments=3, interleaved=interleaved, alternating=True,
    )  # fmt: skip
    found = frames(scan)
    assert sorted(map(counters, found)) == sorted(map(tuple, np.ndindex(2, 2, 2, 2, 2)))
    assert [frame.index for frame in found] == list(range(32))
    for frame in found:
        np.testing.assert_allclose(frame.kspace.array, truth(scan, frame), atol=1e-4)
        # two averages halve the variance
        np.testing.assert_allclose(
            measured_noise(frame), scan.noise_covariance / 2, atol=0.1 * 2 / QUIET**2
        )
        assert frame.problem is None


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["separate", "external"])
@pytest.mark.parametrize("partitions", [1, 14])
def test_reference_scan_calibrates_every_frame_of_its_slice(mode, last, partitions):
    scan = flat() if partitions == 1 else deep()
    axis = "both" if partitions > 1 else "phase"
    thinned = accelerate(
        scan, "equispaced", 4, 12, axis, calibration_mode=mode, calibration_last=last
    )
    found = frames(thinned)
    assert len(found) == scan.slices * scan.repetitions
    lattice, block = thinned.mask.imaging, thinned.mask.calibration
    for frame in found:
        whole = truth(scan, frame)
        for given, lines in (
            (frame.kspace.array, lattice),
            (frame.kspace.calibration.array, block),
        ):
            lines = lines.T if partitions > 1 else lines  # (y, z) to (z, y)
            np.testing.assert_allclose(given, whole * lines[..., None], atol=1e-4)
    kept = {frame.header.idx.slice: frame.kspace.calibration for frame in found}
    assert all(frame.kspace.calibration is kept[frame.header.idx.slice] for frame in found)
    assert None not in kept.values()


def test_embedded_calibration_of_the_first_repetition_calibrates_later_ones():
    scan = flat()
    thinned = accelerate(scan, "equispaced", 2, 12)
    block = thinned.mask.calibration & ~thinned.mask.imaging

    def stream():
        for readout in thinned:
            later = readout.idx.repetition > 0
            readout.clear_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING) if later else None
            if not (later and block[readout.idx.kspace_encode_step_1]):
                yield readout

    found = list(accumulate(stream(), thinned.header, Properties()))
    assert [counters(frame)[3] for frame in found] == [0, 0, 1, 1, 2, 2]
    for frame in found:
        if frame.autocalibrated:
            assert frame.header.idx.repetition == 0
            continue
        lines = thinned.mask.calibration[:, None]
        np.testing.assert_allclose(
            frame.kspace.calibration.array, truth(scan, frame) * lines, atol=1e-4
        )


def test_coil_maps_are_reused_until_new_calibration_lines():
    image, block = letter(24, 20), range(5, 19)

    def reference(scale, repetition):
        lines = acquisitions(scale * image, steps=block, repetition=repetition, noise=1e-3)
        for line in lines:
            line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        return lines

    def imaging(repetition):
        return acquisitions(image, steps=range(0, 24, 2), repetition=repetition, noise=1e-3)

    scan = [*reference(1, 0), *imaging(0), *imaging(1), *reference(2, 2), *imaging(2), *imaging(3)]
    properties = Properties(device="cpu")
    sorted_ = accumulate(scan, parsed(header(24, 20, mode="separate")), properties)
    # one by one, as in the node
    memo = Memo()
    zero, one, two, three = (next(add_coil_maps([frame], properties, memo)) for frame in sorted_)
    assert zero.calibrated.maps is one.calibrated.maps is not None
    assert two.calibrated.maps is three.calibrated.maps is not zero.calibrated.maps


def test_virtual_coils_are_reused_with_the_calibration_and_their_loss_is_an_attribute():
    image, block = letter(24, 20), range(5, 19)
    reference = acquisitions(image, steps=block, noise=1e-3)
    for line in reference:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    imaging = [
        line
        for repetition in range(2)
        for line in acquisitions(
            image, steps=range(0, 24, 2), repetition=repetition, noise=1e-3, seed=repetition
        )
    ]
    properties = Properties(sampler="none", device="cpu", coils=3, noise=1e-3)
    frames = accumulate([*reference, *imaging], parsed(header(24, 20, mode="separate")), properties)
    memo = Memo()
    first, second = (next(compress_coils([frame], properties, memo)) for frame in frames)
    assert first.kspace.coils == second.kspace.coils == first.kspace.calibration.coils == 3
    assert measured_noise(first).shape == (3, 3)
    assert first.kspace.calibration is second.kspace.calibration
    assert 0 < first.coil_loss < 0.1

    mapped = add_coil_maps([first], properties, memo)
    images = list(emit(posterior([list(mapped)], properties), properties))
    attributes = images[0].meta
    assert attributes["coils"] == "3"
    assert float(attributes["coil_compression_loss"]) == pytest.approx(first.coil_loss, rel=0.01)


def test_reference_scan_of_one_slice_calibrates_its_neighbours():
    image, block = letter(24, 20), range(8, 16)
    reference = acquisitions(image, steps=block, slice=1)
    for line in reference:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    imaging = [r for s in range(3) for r in acquisitions(image, steps=range(0, 24, 2), slice=s)]
    xml = parsed(header(24, 20, mode="separate"))
    for scan in (reference + imaging, imaging + reference):
        found = list(accumulate(scan, xml, Properties()))
        assert sorted(frame.header.idx.slice for frame in found) == [0, 1, 2]
        assert all(frame.kspace.calibration.array.any() for frame in found)


def test_bounded_number_of_frames_waits_for_a_late_reference_scan(caplog):
    image = letter(24, 20)
    seen = []

    def stream():
        for repetition in range(MAX_WAITING + 3):
            yield from acquisitions(image, steps=range(0, 24, 2), repetition=repetition)
            seen.append(repetition)

    found = accumulate(stream(), parsed(header(24, 20, mode="separate")), Properties())
    assert next(found).header.idx.repetition == 0
    assert len(seen) == MAX_WAITING  # the next frame sends the first
    assert "No reference scan after 16 frames" in caplog.text
    assert [frame.index for frame in found] == list(range(1, MAX_WAITING + 3))


def test_calibration_over_another_field_of_view():
    """Twice the field of view in both directions, on fewer points of twice the size."""
    ny, nx = 24, 20
    image = np.zeros((ny, nx))
    image[6:18, 5:15] = letter(12, 10)
    wide = np.zeros((2 * ny, 2 * nx))
    wide[ny - ny // 2 : ny + ny // 2, nx - nx // 2 : nx + nx // 2] = image
    reference = acquisitions(wide, coils=1, steps=range(32), center=16)
    for line in reference:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        line.encoding_space_ref = 1
    imaging = acquisitions(image, coils=1, steps=range(0, ny, 2))
    xml = header(ny, nx, mode="external")
    other = header(32, 2 * nx, fy=4 * ny, gy=4 * ny)
    start, end = other.index("  <encoding>"), other.index("</ismrmrdHeader>")
    xml = xml.replace("</ismrmrdHeader>", other[start:end] + "</ismrmrdHeader>")
    (frame,) = accumulate(reference + imaging, parsed(xml), Properties())
    maps = coil_maps(1, 2 * ny, 2 * nx)[0]
    whole = to_kspace((maps * wide)[ny - ny // 2 : ny + ny // 2, nx - nx // 2 : nx + nx // 2])
    measured = frame.kspace.calibration.array.any(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(measured), range(4, 20))
    inner = slice(7, 17)  # resampling smears the ends of the block
    given, whole = frame.kspace.calibration.array[0, inner], whole[inner]
    scale = np.vdot(given, whole) / np.vdot(given, given)  # irrelevant for coil maps
    assert np.abs(scale.imag) < 0.01 * scale.real
    assert np.abs(scale * given - whole).max() < 0.03 * np.abs(whole).max()


@pytest.mark.parametrize("shares", [{"partial_fourier": 0.7}, {"echo": 0.6}])
def test_unsampled_positions_stay_zero(shares):
    scan = SimulatedScan((40, 32), COILS, snr=QUIET, oversampling=1, alternating=True)
    thinned = accelerate(scan, "equispaced", 2, 10, **shares)
    (frame,) = frames(thinned)
    expected = truth(scan, frame) * thinned.mask.sampled[:, None]
    if "echo" in shares:
        expected[..., : 32 - round(0.6 * 32)] = 0
    else:
        assert not frame.kspace.array[:, :12].any()
        expected[:, :12] = 0
    np.testing.assert_allclose(frame.kspace.array, expected, atol=1e-4)
    assert frame.problem is None
    assert frame.kspace.acceleration == pytest.approx(1 / (expected != 0).any(0).mean(), rel=1e-3)


def test_phase_oversampling_and_another_matrix():
    scan = SimulatedScan((24, 20), COILS, snr=QUIET, phase_oversampling=1.5, recon_matrix=(48, 30))
    (frame,) = frames(scan)
    assert frame.kspace.values.shape == (COILS, 36, 20)
    assert frame.recon_shape == (48, 30)
    assert frame.fov_fraction == pytest.approx((24 / 36, 1))


def without_last_flags(readouts):
    for readout in readouts:
        for flag in (
            ismrmrd.ACQ_LAST_IN_SLICE,
            ismrmrd.ACQ_LAST_IN_REPETITION,
            ismrmrd.ACQ_LAST_IN_MEASUREMENT,
        ):
            readout.clear_flag(flag)
        yield readout


@pytest.mark.parametrize("interleaved", [False, True])
def test_without_last_flags_a_frame_ends_with_its_next_repetition(interleaved):
    scan = SimulatedScan(MATRIX, COILS, slices=2, repetitions=3, snr=QUIET, interleaved=interleaved)
    held = 0

    def stream():
        nonlocal held
        for readout in without_last_flags(scan):
            held = readout.idx.repetition
            yield readout

    when = [
        (counters(frame), held, np.abs(frame.kspace.array - truth(scan, frame)).max())
        for frame in accumulate(stream(), scan.header, Properties())
    ]
    assert sorted(found[:4:3] for found, _, _ in when) == [
        (s, r) for s in range(2) for r in range(3)
    ]
    for found, arrived, error in when:
        assert arrived == min(found[3] + 1, 2)
        assert error < 1e-4


def test_interleaved_repetitions_are_complete_frames():
    scan = SimulatedScan(MATRIX, COILS, repetitions=2, snr=QUIET)
    imaging = list(without_last_flags(r for r in scan if r.center_sample))
    imaging.sort(key=lambda r: r.idx.kspace_encode_step_1)
    found = list(accumulate(imaging, scan.header, Properties()))
    assert len(found) == 2
    for frame in found:
        np.testing.assert_allclose(frame.kspace.array, truth(scan, frame), atol=1e-4)


def test_lines_after_the_end_of_their_frame_are_ignored(caplog):
    scan = SimulatedScan(MATRIX, COILS, repetitions=2, snr=QUIET)
    readouts = list(scan)
    late = [r for r in readouts if r.center_sample and r.idx.repetition == 0][:2]
    # after the last-in-slice flag of the first repetition
    at = next(i for i, r in enumerate(readouts) if r.idx.repetition == 1)
    found = list(accumulate(readouts[:at] + late + readouts[at:], scan.header, Properties()))
    assert [counters(frame)[3] for frame in found] == [0, 1]
    assert "Ignored 2 readouts of slice 0, repetition 0" in caplog.text


def test_duplicate_and_missing_lines():
    readouts = acquisitions(letter(24, 20))
    double = acquisitions(3 * letter(24, 20))[7]
    plain = next(accumulate(readouts, parsed(header(24, 20)), Properties())).kspace.array
    (frame,) = accumulate([double, *readouts[:3], *readouts[4:]], parsed(header(24, 20)),
                          Properties())  # fmt: skip
    expected = plain.copy()
    expected[:, 7] *= 2  # the mean of one and three
    expected[:, 3] = 0
    np.testing.assert_allclose(frame.kspace.array, expected, atol=1e-5)
    assert frame.problem is None


def spoilt(kind):
    readouts = acquisitions(letter(24, 20), slice=70)  # beyond its limit, which is harmless
    if kind == "channels":
        readouts[5] = acquisitions(letter(24, 20), coils=2, steps=[5], slice=70, last=False)[0]
    elif kind == "samples":
        longer = acquisitions(letter(24, 40), steps=[5], slice=70, last=False)[0]
        readouts[5] = longer
    elif kind == "space":
        for readout in readouts:
            readout.encoding_space_ref = 9
    return readouts


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("channels", "a readout has 2 channels, expected 4"),
        ("samples", "a readout reaches beyond the 20 samples of the encoded matrix"),
        ("space", "encoding_space_ref is 9, the header describes 1"),
    ],
)
def test_invalid_frames_are_sent_with_the_reason(kind, reason):
    properties = Properties(samples=1, steps=1)
    scan = spoilt(kind) + acquisitions(letter(24, 20), slice=1)
    found = accumulate(scan, parsed(header(24, 20)), properties)
    batches = [list(add_coil_maps([frame], properties, Memo())) for frame in found]
    (bad, classical), (good, sampled) = posterior(batches[:2], properties)
    assert bad.problem == classical.info.reason == reason
    assert np.isfinite(classical.mean).all()
    assert np.corrcoef(np.abs(classical.mean[0]).ravel(), letter(24, 20).ravel())[0, 1] > 0.8
    assert good.problem is None
    assert sampled.info.reason is None


def test_waiting_frames_are_one_batch_despite_other_items_between(monkeypatch, caplog):
    from scoremri_core.recon import reconstruction

    calls, reconstruct = [], reconstruction.reconstruct_slices

    def counted(slices, *args, **options):
        calls.append((len(slices), *slices[0].values.shape))
        return reconstruct(slices, *args, **options)

    monkeypatch.setattr(reconstruction, "reconstruct_slices", counted)
    properties = Properties(sampler="none")
    waveform = ismrmrd.Waveform.from_array(np.zeros((1, 4), np.uint32))
    scan = [r for s in range(3) for r in (*acquisitions(letter(24, 20), slice=s), waveform)]
    other = acquisitions(letter(24, 20), coils=2, slice=3)
    items = list(accumulate([*scan[:25], *other, *scan[25:]], parsed(header(24, 20)), properties))
    with caplog.at_level("INFO"):
        out = list(posterior([list(add_coil_maps(items, properties, Memo()))], properties))
    assert sorted(calls) == [(1, 2, 24, 20), (3, 4, 24, 20)]
    kinds = ["waveform" if o is waveform else o[0].header.idx.slice for o in out]
    assert kinds == [0, "waveform", 3, 1, "waveform", 2, "waveform"]
    for _, result in (o for o in out if o is not waveform):
        assert np.corrcoef(np.abs(result.mean[0]).ravel(), letter(24, 20).ravel())[0, 1] > 0.9
    lines = [m for m in caplog.messages if m.startswith("frame")]
    assert len(lines) == 4
    assert lines[1].startswith("frame 1 (slice 3 contrast 0 phase 0 repetition 0 set 0): sigma_n ")
    for part in ("R 1.00", "assembly", "coil maps", "sampling"):
        assert part in lines[1]
    # the time of the batch is logged once
    assert not any("sampling" in line for line in lines if line != lines[1])
    assert sum(m.startswith("Batch of 3 frames: sampling ") for m in caplog.messages) == 1
