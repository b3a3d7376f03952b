"""Prepare calibrated slices for sampling: scale and noise floor."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scoremri_core.kspace import KSpace
from scoremri_core.mri.classical import zero_filled
from scoremri_core.mri.sampling import Box
from scoremri_core.recon.calibrate import Calibrated
from scoremri_core.recon.noise_model import Covariance, NoiseModel

Array = NDArray[np.complex64]


@dataclass
class Slice:
    """A slice to be sampled, on the smallest grid that holds its k-space samples.

    Attributes
    ----------
    full : KSpace
        K-space on the matrix of the image.
    box : Box
        The grid.
    kspace : KSpace
        K-space on the grid.
    noise : NoiseModel
    maps : complex64 array, (set, coil, y, x), or None
        Coil maps on the grid.
    number : int
        Index of the slice in its stack.
    seed : int
        Seed of the samples.
    scale : float
        Image value that the prior sees as 1.
    fallback : str or None
        Why the slice cannot be sampled.
    samples : complex64 array, (sample, y, x), or None
    misfit : float
        Mean squared residual of the samples over the noise variance of `noise.covariance`.
    mean : complex64 array, (set, y, x), or None
        Mean of the samples before the sets are combined.
    trust : float32 array, (y, x), or None
        Weight of each k-space sample in the likelihood: 1, less in inconsistent lines.
    trusted_misfit : float
        `misfit` weighted by `trust`.
    inconsistent_lines : float
        Fraction of the measured samples that lie in inconsistent lines.
    residual_covariance : complex128 array, (coil, coil), or None
        Covariance of a sample's residual away from DC, where errors of the coil maps count less,
        weighted by `trust`.
    """

    full: KSpace
    box: Box
    kspace: KSpace
    noise: NoiseModel
    maps: Array | None
    number: int
    seed: int
    scale: float = float("nan")
    fallback: str | None = None
    samples: Array | None = field(default=None, repr=False)
    misfit: float = float("nan")
    mean: Array | None = None
    trust: NDArray[np.float32] | None = None
    trusted_misfit: float = float("nan")
    inconsistent_lines: float = float("nan")
    residual_covariance: Covariance | None = None


def prepare(
    full: KSpace, calibrated: Calibrated, number: int, seed: int, scale: float | None
) -> Slice:
    """Set the scale and the noise floor of a slice.

    Parameters
    ----------
    full : KSpace
        The slice on the matrix of the image.
    calibrated : Calibrated
        Its coil maps and noise; not modified.
    number : int
        Index of the slice in its stack.
    seed : int
        Seed of its samples.
    scale : float or None
        Image value that the prior sees as 1. Default: the 99th percentile of the coil-combined
        zero-filled image.

    Returns
    -------
    Slice
        With a `fallback` if it cannot be sampled.
    """
    box = calibrated.box
    result = Slice(
        full,
        box,
        calibrated.kspace,
        copy.copy(calibrated.noise),  # updated during sampling
        calibrated.maps,
        number,
        seed,
    )
    if calibrated.problem is not None:
        result.fallback = calibrated.problem
    elif result.maps is not None:
        if scale is None:
            image = zero_filled(result.kspace.values, result.maps[0])
            result.scale = float(np.percentile(np.abs(image), 99))
        else:
            result.scale = scale / full.unit * box.factor
        if result.scale > 0:
            result.noise.apply_floor(result.scale)
        else:
            result.fallback = "the image is zero"
    return result
