"""What vendors do to images before they leave the scanner: filtered k-space, masked background."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scoremri_core.mri.fourier import resize, to_image, to_kspace
from scoremri_core.training.augment import training_patch

MARGIN = 16  # pixels that a filter may carry across the edge of a patch


def processed_patch(
    image: NDArray[Any], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Draw one training patch (size, size) as `training_patch` does, and process it.

    Its k-space is filtered, or its background is set to zero, or both in this order.
    """
    patch = training_patch(image, size + 2 * MARGIN, rng)
    kind = rng.integers(3)
    if kind != 0:
        patch = to_image(to_kspace(patch) * kspace_filter(patch.shape[0], rng))
    if kind != 1:
        patch = without_background(patch, rng)
    return resize(patch, (size, size)).astype(np.complex64)


def kspace_filter(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A Fermi filter (size, size) of centred k-space, round or a product of one for each axis.

    Where it falls off steeply the image is one that was interpolated by zero filling.
    """
    k = np.abs(np.arange(size) - size // 2) / (size / 2)
    width = 0.1 * 10 ** rng.uniform(-1.5, 0)
    one, other = rng.uniform(0.5, 1, 2)
    if rng.random() < 0.5:
        return _fermi(np.hypot(k[:, None], k[None, :]), one, width)
    return _fermi(k, one, width)[:, None] * _fermi(k, other, width)[None, :]


def _fermi(k: NDArray[np.float64], cutoff: float, width: float) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(np.minimum((k - cutoff) / width, 80)))).astype(np.float32)


def without_background(
    patch: NDArray[np.complex64], rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Zero where the smoothed magnitude is below some percent of that of bright tissue."""
    smooth = gaussian_filter(np.abs(patch), rng.uniform(1, 3))
    return patch * (smooth > rng.uniform(0.04, 0.1))
