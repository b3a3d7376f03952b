"""Vendor post-processing of images: filtered k-space and masked background."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scoremri_core.mri.fourier import resize, to_image, to_kspace
from scoremri_core.training.augment import training_patch

MARGIN = 16  # pixels around a patch, for the wrap-around of filters


def processed_patch(
    image: NDArray[Any], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Draw a training patch, filter its k-space or mask its background, or both.

    Parameters
    ----------
    image, size, rng
        See `training_patch`.

    Returns
    -------
    complex64 array, (size, size)
    """
    patch = training_patch(image, size + 2 * MARGIN, rng)
    kind = rng.integers(3)
    if kind != 0:
        patch = to_image(to_kspace(patch) * kspace_filter(patch.shape[0], rng))
    if kind != 1:
        patch = without_background(patch, rng)
    return resize(patch, (size, size)).astype(np.complex64)


def kspace_filter(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a Fermi filter (size, size) of centred k-space, radial or separable.

    A steep one corresponds to interpolation by zero filling.
    """
    k = np.abs(np.arange(size) - size // 2) / (size / 2)
    width = 0.1 * 10 ** rng.uniform(-1.5, 0)
    cutoff_y, cutoff_x = rng.uniform(0.5, 1, 2)
    if rng.random() < 0.5:
        return _fermi(np.hypot(k[:, None], k[None, :]), cutoff_y, width)
    return _fermi(k, cutoff_y, width)[:, None] * _fermi(k, cutoff_x, width)[None, :]


def _fermi(k: NDArray[np.float64], cutoff: float, width: float) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(np.minimum((k - cutoff) / width, 80)))).astype(np.float32)


def without_background(
    patch: NDArray[np.complex64], rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Set pixels to zero whose smoothed magnitude is below 4 to 10 % of bright tissue."""
    smooth = gaussian_filter(np.abs(patch), rng.uniform(1, 3))
    return patch * (smooth > rng.uniform(0.04, 0.1))
