"""What vendors do to images, done to training patches."""

import numpy as np
import pytest

from scoremri_core.mri.fourier import resize, to_kspace
from scoremri_core.training.augment import training_patch
from scoremri_core.training.processing import (
    MARGIN,
    kspace_filter,
    processed_patch,
    without_background,
)


def test_filters_pass_low_frequencies_and_fall_outwards():
    for seed in range(40):
        passed = kspace_filter(64, np.random.default_rng(seed))
        assert passed.shape == (64, 64)
        assert passed[32, 32] > 0.99
        assert passed.max() <= 1
        # the same for k and -k: a real image stays real
        np.testing.assert_allclose(passed[1:, 1:], passed[:0:-1, :0:-1], atol=1e-6)
        for line in (passed[32:, 32], passed[32, 32:]):
            assert np.all(np.diff(line) <= 0)
            assert line[15] > 0.4  # up to half of the band


def test_a_background_is_masked_and_nothing_else():
    rng = np.random.default_rng(0)
    y, x = np.ogrid[-1:1:96j, -1:1:96j]
    inside = np.hypot(y, x) < 0.6
    noise = 0.01 * (rng.standard_normal((96, 96)) + 1j * rng.standard_normal((96, 96)))
    image = (inside + noise).astype(np.complex64)
    for seed in range(10):
        masked = without_background(image, np.random.default_rng(seed))
        assert masked.dtype == np.complex64
        np.testing.assert_array_equal(masked[inside], image[inside])
        assert not masked[np.hypot(y, x) > 0.75].any()


def test_processed_patches_are_filtered_or_masked():
    rng = np.random.default_rng(1)
    image = np.zeros((200, 200), np.complex64)
    image[50:150, 50:150] = 1
    image += 0.05 * (rng.standard_normal((200, 200)) + 1j * rng.standard_normal((200, 200)))
    kinds, untouched = set(), set()
    for seed in range(30):
        patch = processed_patch(image, 144, np.random.default_rng(seed))
        again = processed_patch(image, 144, np.random.default_rng(seed))
        np.testing.assert_array_equal(patch, again)
        assert patch.shape == (144, 144)
        assert patch.dtype == np.complex64
        drawn = training_patch(image, 144 + 2 * MARGIN, np.random.default_rng(seed))
        assert np.linalg.norm(patch) < np.linalg.norm(drawn)
        # a mask leaves what it does not take away, a filter nothing
        left = patch[patch != 0] == resize(drawn, (144, 144))[patch != 0]
        assert left.all() or left.mean() < 0.01
        untouched.add(bool(left.all()))
        power = np.abs(to_kspace(patch)) ** 2
        filtered = power[:8, :8].mean() < 0.1 * np.median(power)
        kinds.add((filtered, bool(np.mean(patch == 0) > 0.1)))
    assert {(True, False), (False, True)} <= kinds
    assert untouched == {True, False}


@pytest.mark.parametrize("shape", [(40, 60), (20, 300)])
def test_slices_smaller_than_a_patch_are_processed_too(shape):
    patch = processed_patch(np.ones(shape, np.float16), 64, np.random.default_rng(0))
    assert patch.shape == (64, 64)
    assert np.isfinite(patch).all()
