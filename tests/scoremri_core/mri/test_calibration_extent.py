"""Detection of the calibration region."""

import numpy as np
import pytest

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.sampling import calibration_extent


def lines(ny, nx, *which):
    mask = np.zeros((ny, nx), bool)
    for w in which:
        mask[w] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((40, 30), bool), (0, 40, 0, 30)),
        (lines(64, 32, slice(None, None, 4), slice(20, 44)), (20, 45, 0, 32)),
        (lines(63, 31, slice(None, None, 4), slice(19, 43)), (19, 43, 0, 31)),
        # R = 3 from 18 to 123, calibration lines 48 to 96, DC at 72, as in a Siemens scan
        (lines(144, 96, slice(18, 124, 3), slice(48, 97)), (48, 97, 0, 96)),
        (lines(64, 32, slice(30, 60)), (30, 60, 0, 32)),
        # partial echo
        (lines(64, 32, (slice(20, 44), slice(9, None))), (20, 44, 9, 32)),
        # both axes undersampled: the block, not the single line through DC
        (
            lines(64, 64, (slice(None, None, 2), slice(None, None, 2)), 32,
                  (slice(20, 44), slice(24, 40))),
            (20, 44, 24, 40),
        ),
    ],
)  # fmt: skip
def test_extent_is_the_fully_sampled_block_around_dc(mask, expected):
    y, x = calibration_extent(mask)
    assert mask[y, x].all()
    kspace = np.stack([np.zeros(mask.shape), mask * 1j])
    assert calibration_extent(kspace) == (y, x)
    assert (y.start, y.stop, x.start, x.stop) == expected


def test_extent_of_a_round_block_is_its_inscribed_square():
    y, x = np.mgrid[-32:32, -32:32]
    extent = calibration_extent(np.hypot(y, x) <= 14)
    assert all(18 <= s.stop - s.start <= 22 for s in extent)


def test_extent_needs_the_centre():
    with pytest.raises(CalibrationError, match="centre"):
        calibration_extent(lines(64, 32, slice(0, 20)))
