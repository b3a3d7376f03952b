"""Readouts with constant encode steps or contrast counters."""

from dataclasses import replace

import ismrmrd
import numpy as np
import pytest

from scoremri_core.scans.encoding import Encoding, Readout, as_measured
from scoremri_core.scans.gridding import assemble
from scoremri_core.scans.sorting import sort_readouts

NX, NY, NZ = 20, 12, 6
FOV = (0.25 * NX, 0.5 * NY, 2.0 * NZ)  # different pixel sizes in all directions


def encoding(nz=1):
    return Encoding(
        matrix=(NX, NY, nz),
        fov=FOV,
        recon_matrix=(NX, NY, nz),
        recon_fov=FOV,
        center=(NY // 2, nz // 2),
        averages=1,
        calibration_mode="",
        acceleration=1,
        steps=(range(NY), range(nz)),
    )


def kspace(nz=1, seed=0):
    """Return random k-space (coil, z, y, x) that decays from DC."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(n) - n // 2 for n in (nz, NY, NX)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    values = rng.normal(size=(2, 2, nz, NY, NX))
    return ((values[0] + 1j * values[1]) * 100 / (1 + x**2 + y**2 + z**2)).astype(np.complex64)


def readout(data, ends=None, **idx):
    header = ismrmrd.AcquisitionHeader()
    header.center_sample = NX // 2
    position, user = idx.pop("position", 0), idx.pop("user", 0)
    header.position[2], header.idx.user[3] = position, user
    for name, value in idx.items():
        setattr(header.idx, name, value)
    return Readout(header, data, None if ends is None else np.array(ends, np.float32))


UNITS = {  # distance of encode steps along x, y and z
    "cycles per pixel": (1 / NX, 1 / NY, 1 / NZ),
    "-pi to pi": (2 * np.pi / NX, 2 * np.pi / NY, 2 * np.pi / NZ),
    "1/mm": tuple(1 / side for side in FOV),
    "rad/m": tuple(2000 * np.pi / side for side in FOV),
    "steps": (1, 1, 1),
}


def along_trajectory(full, unit, lines, partitions=(0,), from_zero=False):
    """Return readouts without counters; positions are relative to DC or to the first sample."""
    scale = np.array(UNITS[unit])
    nz = full.shape[1]
    found = []
    for z in partitions:
        for y in lines:
            start = np.array([0, y, z]) - (0 if from_zero else np.array([NX, NY, nz]) // 2)
            ends = np.array([start, start + np.array([NX - 1, 0, 0])]) * scale
            found.append(readout(full[:, z, y], ends if nz > 1 else ends[:, :2]))
    return found


def assembled(readouts, of):
    (lines,) = sort_readouts(readouts, of)
    assert lines.problems == []
    return assemble(lines.readouts, lines.encoding).values


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("lines", [range(NY), range(3, NY), [0, 2, 4, 5, 6, 7, 8, 10]])
def test_positions_only_in_the_trajectory(unit, lines):
    full = kspace()
    expected = np.zeros_like(full[:, 0])
    expected[:, list(lines)] = full[:, 0, list(lines)]
    order = np.random.default_rng(1).permutation(list(lines))
    found = assembled(along_trajectory(full, unit, order), encoding())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("declared", [True, False])
def test_positions_of_a_volume_only_in_the_trajectory(unit, declared):
    """With and without partitions in the encoding limits."""
    full, of = kspace(NZ), encoding(NZ)
    if not declared:
        of = replace(of, matrix=(NX, NY, 1), center=(0, 0), steps=(range(1), range(1)))
    found = assembled(along_trajectory(full, unit, range(NY), range(NZ)), of)
    np.testing.assert_array_equal(found, full)


def test_one_step_from_a_counter_and_one_from_the_trajectory():
    full = kspace(NZ)
    readouts = along_trajectory(full, "1/mm", range(NY), range(NZ))
    for number, each in enumerate(readouts):
        each.header.idx.kspace_encode_step_1 = number % NY
    np.testing.assert_array_equal(assembled(readouts, encoding(NZ)), full)


def test_positions_that_count_from_the_first_line():
    full = kspace()
    found = assembled(along_trajectory(full, "steps", range(NY), from_zero=True), encoding())
    np.testing.assert_array_equal(found, full[:, 0])


def test_reversed_readouts_of_the_trajectory():
    full = kspace()
    readouts = along_trajectory(full, "1/mm", range(NY))
    reversed_ = [Readout(r.header, r.data[:, ::-1], r.ends[::-1]) for r in readouts[::2]]
    np.testing.assert_array_equal(assembled([*reversed_, *readouts[1::2]], encoding()), full[:, 0])


def test_counters_take_precedence_over_the_trajectory():
    """For any unit or offset of the trajectory."""
    full = kspace()
    readouts = along_trajectory(full, "1/mm", range(NY))
    for step, each in enumerate(readouts):
        each.header.idx.kspace_encode_step_1 = NY - 1 - step
    np.testing.assert_array_equal(assembled(readouts, encoding()), full[:, 0, ::-1])


@pytest.mark.parametrize("gap", [0.5, 1.3])
def test_trajectory_off_the_grid_is_a_problem(gap):
    readouts = along_trajectory(kspace(), "steps", range(NY))
    for each in readouts:
        each.ends[:, 1] *= gap
    (lines,) = sort_readouts(readouts, encoding())
    message = "kspace_encode_step_1 is 0 in all readouts and the trajectory is not Cartesian"
    assert message in lines.problems[0]


def test_radial_trajectory_is_a_problem():
    spokes = [
        readout(line, np.outer([-0.5, 0.5], [np.cos(angle), np.sin(angle)]))
        for line, angle in zip(kspace()[:, 0].swapaxes(0, 1), np.arange(NY) / 4, strict=True)
    ]
    (lines,) = sort_readouts(spokes, encoding())
    assert "the trajectory is not Cartesian" in lines.problems[0]


def test_readouts_without_position_are_a_problem():
    (lines,) = sort_readouts([readout(kspace()[:, 0, y]) for y in range(NY)], encoding())
    assert lines.problems == ["12 readouts at 1 position of k-space"]


def test_single_partition_of_a_volume_is_a_problem():
    """For example with partitions counted as slices."""
    full = kspace(NZ)
    lines = [readout(full[:, 2, y], kspace_encode_step_1=y, slice=2) for y in range(NY)]
    (found,) = sort_readouts(lines, encoding(NZ))
    assert found.problems == ["all readouts are in one of 6 partitions"]


ECHOES = [(1.0, 1), (0.9j, 2), (-0.3, 3)]
CRITERIA = {
    "time": lambda echo: {},
    "segment": lambda echo: {"segment": echo},
    "user": lambda echo: {"user": 5 * echo},
    "position": lambda echo: {"position": 3.5 * echo},
}


@pytest.mark.parametrize("by", CRITERIA)
@pytest.mark.parametrize("line_by_line", [True, False])
def test_echoes_with_a_constant_counter_are_separated(by, line_by_line):
    full = kspace()[:, 0]
    places = [(y, e) for y in range(NY) for e in range(3)]
    if not line_by_line:
        places.sort(key=lambda place: place[1])
    readouts = [
        readout(full[:, y] * ECHOES[e][0], kspace_encode_step_1=y, **CRITERIA[by](e))
        for y, e in places
    ]
    if by == "user":  # not in order of acquisition
        readouts.reverse()
    images = sort_readouts(readouts, encoding())
    counter = "slice" if by == "position" else "contrast"
    for number, (lines, (factor, _)) in enumerate(zip(images, ECHOES, strict=True)):
        assert {getattr(r.header.idx, counter) for r in lines.readouts} == {number}
        found = assemble(lines.readouts, lines.encoding)
        assert found.averages.max() == 1
        np.testing.assert_allclose(found.values, full * np.complex64(factor))


def test_echoes_with_missing_lines_are_separated():
    full = kspace()[:, 0]
    readouts = [
        readout(full[:, y] * factor, kspace_encode_step_1=y)
        for y in range(NY)
        for factor, echo in ECHOES
        if y < NY - 1 or echo == 1
    ]
    images = sort_readouts(readouts, encoding())
    assert [len(lines.readouts) for lines in images] == [NY, NY - 1, NY - 1]


@pytest.mark.parametrize("signal", [0, 1, 100])
@pytest.mark.parametrize("count", [2, 5])
def test_averages_without_a_counter_are_one_image(signal, count):
    """They differ by noise and a small phase drift."""
    rng = np.random.default_rng(2)
    full = signal * kspace()[:, 0]
    readouts = []
    for number in range(count):
        noise = rng.normal(size=(2, *full.shape))
        data = full * np.exp(0.02j * number) + noise[0] + 1j * noise[1]
        readouts += [readout(data[:, y], kspace_encode_step_1=y) for y in range(NY)]
    (lines,) = sort_readouts(readouts, encoding())
    assert lines.problems == []
    assert (assemble(lines.readouts, lines.encoding).averages == count).all()


def test_readouts_with_average_counter_are_averages():
    full = kspace()[:, 0]
    readouts = [
        readout(full[:, y] * factor, kspace_encode_step_1=y, average=echo)
        for y in range(NY)
        for factor, echo in ECHOES
    ]
    assert len(sort_readouts(readouts, encoding())) == 1


@pytest.mark.parametrize(("first", "center"), [(1, NY // 2), (100, NY // 2), (7, 3)])
def test_centre_is_corrected_if_lines_fit_into_the_matrix(first, center, caplog):
    """Steps counted from 1 or elsewhere, with other limits."""
    full = kspace()[:, 0]
    of = replace(encoding(), center=(center, 0))
    readouts = [readout(full[:, y], kspace_encode_step_1=first + y) for y in range(NY)]
    measured = as_measured(of, readouts)
    assert measured.center == (first + NY // 2, 0)
    assert f"using centre {first + NY // 2}" in caplog.text
    np.testing.assert_array_equal(assemble(readouts, measured).values, full)


def test_centre_of_partial_lines_is_the_brightest():
    full = kspace()[:, 0]
    lines = range(3, NY)
    readouts = [readout(full[:, y], kspace_encode_step_1=50 + y) for y in lines]
    assert as_measured(encoding(), readouts).center[0] == 50 + NY // 2


@pytest.mark.parametrize("lines", [range(NY + 1), range(60, 63)])
def test_centre_is_kept_if_lines_do_not_fit_or_are_few(lines):
    readouts = [readout(kspace()[:, 0, 0], kspace_encode_step_1=y) for y in lines]
    assert as_measured(encoding(), readouts) == encoding()
