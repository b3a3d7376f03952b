import ismrmrd
import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import change_field_of_view, to_kspace
from scoremri_core.scans.encoding import encoding_limits
from scoremri_core.scans.files import write_scan
from scoremri_core.scans.formats.geometry import geometry_of
from scoremri_core.scans.gridding import fully_sampled_kspace, gridded, zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan


def test_lines_are_placed_by_encoding_limits_and_centre_sample(tmp_path):
    """A partial matrix: DC in line 5 of 0..15 on 24, and in sample 9 of 20 on 32."""
    image = SimulatedScan(matrix=(24, 16), coils=2).image * np.ones((2, 1, 1))
    kspace = np.zeros((2, 24, 32), np.complex64)
    kspace[:, 7:23, 7:27] = to_kspace(np.pad(image, ((0, 0), (0, 0), (8, 8))))[:, 7:23, 7:27]
    header = SimulatedScan(matrix=(24, 16), coils=2).header
    limits = header.encoding[0].encodingLimits.kspace_encoding_step_1
    limits.maximum, limits.center = 15, 5
    lines = []
    for step in range(16):
        line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[:, step + 7, 7:27]))
        line.idx.kspace_encode_step_1, line.center_sample = step, 9
        lines.append(line)
    write_scan(tmp_path / "p.h5", header, lines)
    placed = fully_sampled_kspace(tmp_path / "p.h5")[0]
    assert placed.shape == (2, 24, 16)
    whole = change_field_of_view(kspace, 16, -1)
    reached = slice(4, 14)  # samples nearest to acquired ones
    assert np.allclose(placed[..., reached], whole[..., reached], atol=1e-5)
    assert not np.delete(placed, np.r_[reached], axis=-1).any()


class Averaged:
    """Two averages of a scan, the second is three times the first."""

    def __init__(self, scan):
        self.header, self.name = scan.header, "averaged"
        self.acquisitions = list(scan)
        for again in list(scan):
            again.idx.average = 1
            again.data[:] *= 3
            self.acquisitions.append(again)

    def heads(self):
        dtype = ismrmrd.hdf5.acquisition_header_dtype
        return np.concatenate([np.frombuffer(a.getHead(), dtype) for a in self.acquisitions])

    def __iter__(self):
        return iter(self.acquisitions)


def test_averages_are_averaged():
    scan = SimulatedScan((20, 16), coils=2, slices=2)
    assert np.allclose(zero_filled_kspace(Averaged(scan)), 2 * zero_filled_kspace(scan), rtol=1e-4)


def test_averages_are_counted():
    scan = SimulatedScan((20, 16), coils=2)
    averaged = Averaged(scan)
    averaged.acquisitions = averaged.acquisitions[:-5]
    (kspace,) = gridded(averaged)
    expected = np.repeat([2] * 15 + [1] * 5, 16).reshape(20, 16)
    np.testing.assert_array_equal(kspace.averages, expected)


def test_first_of_echoes_without_a_counter_is_taken():
    scan = SimulatedScan((20, 16), coils=2)
    echoes = Averaged(scan)
    for acquisition in echoes.acquisitions:
        acquisition.idx.average = 0
    assert np.array_equal(zero_filled_kspace(echoes), zero_filled_kspace(scan))


def test_slice_counters_may_start_at_one_and_have_gaps():
    scan = SimulatedScan((20, 16), coils=2, slices=2)
    counted = Averaged(scan)
    counted.acquisitions = list(scan)
    for acquisition in counted.acquisitions:
        acquisition.idx.slice = 1 + 3 * acquisition.idx.slice
    assert np.array_equal(zero_filled_kspace(counted), zero_filled_kspace(scan))
    assert geometry_of(counted, 2) == geometry_of(scan, 2)


def test_first_of_several_repetitions_is_taken():
    scan = SimulatedScan((20, 16), coils=2, repetitions=3)
    first = SimulatedScan((20, 16), coils=2)
    assert np.array_equal(zero_filled_kspace(scan), zero_filled_kspace(first))


def test_lines_of_another_encoding_space_are_ignored():
    """Navigators with other encode steps."""
    plain = SimulatedScan(matrix=(20, 16), coils=2)

    class WithNavigators(SimulatedScan):
        def heads(self):
            heads = super().heads()
            navigators = heads[-3:].copy()
            navigators["encoding_space_ref"] = 1
            navigators["idx"]["kspace_encode_step_1"] = 0
            navigators["idx"]["slice"] = 5
            return np.concatenate([heads[:40], navigators, heads[40:]])

        def __iter__(self):
            lines = list(plain)
            yield from [*lines[:40], *lines[-3:], *lines[40:]]

    found = zero_filled_kspace(WithNavigators(matrix=(20, 16), coils=2))
    np.testing.assert_array_equal(found, zero_filled_kspace(plain))


def test_missing_lines_are_an_error(tmp_path):
    scan = SimulatedScan((20, 16), coils=2)
    write_scan(tmp_path / "s.h5", scan.header, list(scan)[:-3])
    with pytest.raises(InputError, match=r"s\.h5.*not fully sampled: 17 of 20 lines"):
        fully_sampled_kspace(tmp_path / "s.h5")


def test_lines_outside_of_the_matrix_are_dropped_with_a_warning(tmp_path, caplog):
    scan = SimulatedScan((20, 16), coils=2)
    lines = list(scan)
    lines[-1].idx.kspace_encode_step_1 = 21
    write_scan(tmp_path / "s.h5", scan.header, lines)
    with pytest.raises(InputError, match=r"s\.h5.*not fully sampled: 19 of 20 lines"):
        fully_sampled_kspace(tmp_path / "s.h5")
    assert "1 readout outside of the encoded matrix of 32 x 20 x 1" in caplog.text


def test_nonfinite_readouts_are_dropped(caplog):
    class Odd(SimulatedScan):
        def __iter__(self):
            *lines, last = super().__iter__()
            last.data[:] = np.nan
            yield from [*lines, last]

    kspace = zero_filled_kspace(Odd((20, 16), coils=2))
    assert "1 readout with non-finite values" in caplog.text
    expected = zero_filled_kspace(SimulatedScan((20, 16), coils=2))
    np.testing.assert_array_equal(kspace[:, :, :-1], expected[:, :, :-1])
    assert not kspace[:, :, -1].any()


def test_single_partition_is_a_2d_scan():
    scan = SimulatedScan((20, 16), coils=2)
    plain = zero_filled_kspace(scan)
    scan.header.encoding[0].encodedSpace.matrixSize.z = 2
    np.testing.assert_array_equal(zero_filled_kspace(scan), plain)
    scan.header.encoding[0].encodingLimits.kspace_encoding_step_2 = None
    np.testing.assert_array_equal(zero_filled_kspace(scan), plain)
    with pytest.raises(InputError, match="a 3D scan, expected 2D slices"):
        zero_filled_kspace(SimulatedScan((20, 16), coils=2, partitions=2))


def test_limits_default_to_the_matrix_and_contain_their_centre():
    header = SimulatedScan((21, 16), coils=2).header
    limits = header.encoding[0].encodingLimits
    limits.kspace_encoding_step_1.center = 30
    with pytest.raises(InputError, match="outside of its limits 0 to 20"):
        encoding_limits(header, "kspace_encode_step_1")
    limits.kspace_encoding_step_1 = None
    found = encoding_limits(header, "kspace_encode_step_1")
    assert (found.minimum, found.count, found.center) == (0, 21, 10)
