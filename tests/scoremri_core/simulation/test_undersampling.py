import ismrmrd
import numpy as np
import pytest

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.files import open_scan
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate


class Listed:
    """A scan held as a list of acquisitions."""

    def __init__(self, header, acquisitions, name="listed"):
        self.header, self.acquisitions, self.name = header, list(acquisitions), name

    def heads(self):
        dtype = ismrmrd.hdf5.acquisition_header_dtype
        return np.concatenate([np.frombuffer(a.getHead(), dtype) for a in self.acquisitions])

    def __iter__(self):
        return iter(self.acquisitions)


FLAT = SimulatedScan((40, 24), coils=2)
DEEP = SimulatedScan((20, 16), coils=2, slices=3, repetitions=2)


def flags(acquisition):
    return {flag for flag in range(1, 65) if acquisition.is_flag_set(flag)}


def step(acquisition):
    return acquisition.idx.kspace_encode_step_1


def imaging(acquisitions):
    return [a for a in acquisitions if not a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]


def test_lines_and_flags_are_those_of_an_accelerated_scan():
    kept = list(accelerate(FLAT, "equispaced", 4, 9))
    originals = {step(a): a for a in imaging(FLAT)}
    lines = {step(a): a for a in imaging(kept)}
    assert len(kept) - len(lines) == len(list(FLAT)) - 40  # every noise readout
    assert set(lines) == set(range(0, 40, 4)) | set(range(16, 25))
    for number, line in lines.items():
        calibration = flags(line) & {
            ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
            ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING,
        }
        expected = {21 if number % 4 == 0 else 20} if 16 <= number < 25 else set()
        assert calibration == expected
        assert np.array_equal(line.data, originals[number].data)
        assert list(line.position) == list(originals[number].position)


def test_first_and_last_flags_move_to_the_lines_that_are_left():
    kept = imaging(accelerate(DEEP, "equispaced", 3, 5))
    lines = sorted({step(a) for a in kept})
    assert (lines[0], lines[-1]) == (1, 19)
    carriers = {flag: [] for flag in (1, 2, 7, 8, 13, 14, 25)}
    for a in kept:
        for flag in flags(a) & set(carriers):
            carriers[flag].append((a.idx.repetition, a.idx.slice, step(a)))
    slices = [(r, s) for r in range(2) for s in range(3)]
    assert carriers[1] == carriers[7] == [(*at, 1) for at in slices]
    assert carriers[2] == carriers[8] == [(*at, 19) for at in slices]
    assert carriers[13] == [(0, 0, 1), (1, 0, 1)]
    assert carriers[14] == [(0, 2, 19), (1, 2, 19)]
    assert carriers[25] == [(1, 2, 19)]


def test_flags_move_within_their_slice_when_slices_are_interleaved():
    lines = sorted(imaging(DEEP), key=lambda a: (a.idx.repetition, step(a), a.idx.slice))
    kept = list(accelerate(Listed(DEEP.header, lines), "equispaced", 7, 0))
    ends = [(a.idx.repetition, a.idx.slice, step(a)) for a in kept if a.is_flag_set(8)]
    assert ends == [(r, s, 17) for r in range(2) for s in range(3)]
    assert [kept.index(a) for a in kept if a.is_flag_set(25)] == [len(kept) - 1]


def test_lines_of_another_encoding_space_are_kept_as_they_are():
    lines = list(FLAT)
    extra = [ismrmrd.Acquisition(line.getHead(), line.data) for line in lines[-3:]]
    for number, line in enumerate(extra):
        line.encoding_space_ref = 1
        line.idx.kspace_encode_step_1 = 900 + number
    thinned = list(accelerate(Listed(FLAT.header, lines + extra), "equispaced", 4, 8))
    assert thinned[-3:] == extra
    assert thinned[:-3] == list(accelerate(FLAT, "equispaced", 4, 8))


def test_the_header_says_how_it_was_accelerated():
    thinned = accelerate(FLAT, "equispaced", 4, 9)
    parallel = thinned.header.encoding[0].parallelImaging
    assert parallel.accelerationFactor.kspace_encoding_step_1 == 4
    assert parallel.accelerationFactor.kspace_encoding_step_2 == 1
    assert parallel.calibrationMode.value == "embedded"
    assert FLAT.header.encoding[0].parallelImaging is None
    none = accelerate(FLAT, "random", 2.5, 0).header.encoding[0].parallelImaging
    assert none.calibrationMode.value == "other"


@pytest.mark.parametrize("kind", ["equispaced", "random", "gaussian", "poisson"])
def test_the_frame_builder_reads_the_flags_back(kind):
    """The frame's k-space is the masked original, its calibration the central block."""
    thinned = accelerate(DEEP, kind, 4, 7, seed=5)
    frames = list(accumulate(thinned, thinned.header, Properties()))
    assert len(frames) == 6
    whole = zero_filled_kspace(DEEP)
    for frame in frames[:3]:
        slice_ = frame.header.idx.slice
        sampled = whole[slice_] * thinned.mask.sampled[:, None]
        assert np.allclose(frame.kspace.array, sampled, atol=1e-5)
        assert frame.autocalibrated
        assert frame.kspace.mask[thinned.mask.calibration].all()
    found = [(f.header.idx.repetition, f.header.idx.slice) for f in frames]
    assert found == [(r, s) for r in range(2) for s in range(3)]


def test_calibration_lies_around_the_centre_of_the_encoding_limits():
    header = SimulatedScan((40, 24), coils=2).header
    limits = header.encoding[0].encodingLimits.kspace_encoding_step_1
    limits.minimum, limits.maximum, limits.center = 2, 31, 9
    lines = [a for a in imaging(FLAT) if 2 <= step(a) <= 31]
    thinned = accelerate(Listed(header, lines), "equispaced", 5, 6)
    assert [step(a) for a in thinned] == [4, *range(6, 12), 14, 19, 24, 29]
    assert thinned.mask.acceleration == 30 / 11


def test_partitions_of_a_3d_scan_can_be_undersampled():
    header = SimulatedScan((16, 16), coils=1).header
    header.encoding[0].encodedSpace.matrixSize.z = 6
    limits = header.encoding[0].encodingLimits.kspace_encoding_step_2
    limits.maximum, limits.center = 5, 3
    lines = []
    for partition in range(6):
        for line in imaging(SimulatedScan((16, 16), coils=1)):
            line.idx.kspace_encode_step_2 = partition
            lines.append(line)
    scan = Listed(header, lines)
    both = accelerate(scan, "poisson", 4, 4, "both", seed=1)
    positions = {(step(a), a.idx.kspace_encode_step_2) for a in both}
    assert positions == set(map(tuple, np.argwhere(both.mask.sampled)))
    assert both.mask.acceleration > 2
    lattice = accelerate(scan, "equispaced", 4, 0, "both")
    factor = lattice.header.encoding[0].parallelImaging.accelerationFactor
    assert (factor.kspace_encoding_step_1, factor.kspace_encoding_step_2) == (2, 2)
    partitions = accelerate(scan, "equispaced", 3, 2, "partition")
    assert {a.idx.kspace_encode_step_2 for a in partitions} == {0, 2, 3}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["separate", "external"])
def test_a_reference_scan_comes_once_with_lines_of_its_own(mode, last):
    thinned = accelerate(DEEP, "equispaced", 4, 6, calibration_mode=mode, calibration_last=last)
    kept = imaging(thinned)
    reference = [a for a in kept if a.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)]
    assert reference == (kept[-18:] if last else kept[:18])
    shift = 7 if mode == "external" else 0
    assert [(a.idx.slice, step(a) + shift) for a in reference] == [
        (s, y) for s in range(3) for y in range(7, 13)
    ]
    assert {a.encoding_space_ref for a in reference} == {int(mode == "external")}
    assert [a.is_flag_set(8) for a in reference] == 3 * [*5 * [False], True]
    originals = {(a.idx.slice, step(a)): a for a in imaging(DEEP) if a.idx.repetition == 0}
    for a in reference:
        assert np.array_equal(a.data, originals[a.idx.slice, step(a) + shift].data)
    lines = [a for a in kept if a not in reference]
    assert len(lines) == 2 * 3 * 5
    assert {step(a) % 4 for a in lines} == {2}
    assert not any(flags(a) & {20, 21} for a in lines)
    header = thinned.header
    assert header.encoding[0].parallelImaging.calibrationMode.value == mode
    assert len(header.encoding) == 1 + (mode == "external")
    if mode == "external":
        assert header.encoding[1].encodedSpace.matrixSize.y == 6
        assert header.encoding[1].encodingLimits.kspace_encoding_step_1.center == 3


def test_partial_fourier_and_partial_echo_leave_out_the_beginning():
    thinned = accelerate(FLAT, "equispaced", 2, 6, partial_fourier=0.625, echo=0.75)
    originals = {step(a): a for a in imaging(FLAT)}
    lines = {step(a): a for a in imaging(thinned)}
    assert set(lines) == set(range(16, 40, 2)) | set(range(17, 23))
    for number, line in lines.items():
        assert (line.number_of_samples, line.center_sample) == (36, 24 - 12)
        assert np.array_equal(line.data, originals[number].data[:, 12:])
    limits = thinned.header.encoding[0].encodingLimits.kspace_encoding_step_1
    assert (limits.minimum, limits.center, limits.maximum) == (15, 20, 39)
    assert thinned.mask.acceleration == 40 / len(lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"calibration_mode": "psychic"}, "expected one of embedded, separate, external"),
        ({"partial_fourier": 0.5}, "partial fourier 0.5: expected at most 1, and to keep"),
        ({"partial_fourier": 1.5}, "partial fourier 1.5"),
        ({"echo": 0.5}, "partial echo 0.5: expected more than 0.5"),
    ],
)
def test_refused_options(options, words):
    with pytest.raises(InputError, match=words):
        accelerate(FLAT, "equispaced", 2, 6, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("equispaced", 4, 41), "calibration 41"),
        (("equispaced", 41, 4), "acceleration 41: expected 1 to 40"),
        (("equispaced", 0, 4), "acceleration 0"),
        (("equispaced", 4, 4, "both"), "needs a scan with partitions"),
        (("equispaced", 4, 4, "readout"), "expected one of phase, partition, both"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(InputError, match=words):
        accelerate(FLAT, *arguments)


def test_what_is_undersampled_already_is_refused():
    thinned = accelerate(FLAT, "equispaced", 2, 4)
    with pytest.raises(InputError, match="listed: not fully sampled: slice 0 has 22 lines"):
        accelerate(Listed(thinned.header, thinned), "equispaced", 2, 4)
    with pytest.raises(InputError, match="no imaging lines"):
        accelerate(Listed(FLAT.header, [next(iter(FLAT))]), "equispaced", 2, 4)


def test_real_scans(raw_data):
    with open_scan(raw_data / "brain_axial_8ch_230x180.h5") as scan:
        thinned = accelerate(scan, "equispaced", 6, 24)
        assert len(list(thinned)) == 30 + 20  # every sixth of 180, and 20 more of the central 24
        assert thinned.mask.acceleration == 3.6
    with (
        open_scan(raw_data / "siemens_R3_14ch_noise_scan.h5") as scan,
        pytest.raises(InputError, match=r"siemens_R3.*not fully sampled"),
    ):
        accelerate(scan, "equispaced", 6, 24)
