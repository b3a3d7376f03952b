"""From calibrated slices to slices that can be sampled: their scale and least noise."""

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
    """A slice on its way to the sampler, on the box that its samples reach.

    Attributes
    ----------
    full : KSpace
        On the matrix of the image.
    box : Box
    kspace : KSpace
        On the box.
    noise : NoiseModel
    maps : complex64 (set, coil, y, x), or None
        On the box.
    number : int
        Of the slice in its stack.
    seed : int
        Of its samples.
    scale : float
        Image value that the prior sees as 1.
    fallback : str or None
        Why it is not sampled.
    samples : complex64 (sample, y, x), or None
        As they are drawn.
    misfit : float
        Mean square of the residual of the samples, over that of the noise in `noise.covariance`.
    mean : complex64 (set, y, x), or None
        Of the samples, before their sets are combined.
    trust : float32 (y, x), or None
        Weight that the likelihood leaves to each sample of k-space, for the line it belongs to: 1,
        or less where that line contradicts the others.
    trusted_misfit : float
        `misfit` of the k-space as it is trusted.
    inconsistent : float
        Fraction of the measured samples in lines with far more noise than others.
    left : complex128 (coil, coil), or None
        Covariance of a sample's residual, as far as it is trusted, away from DC, where errors of
        the maps count less.
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
    inconsistent: float = float("nan")
    left: Covariance | None = None

    def fall_back(self, reason: str) -> None:
        """Mark as a slice that cannot be sampled."""
        self.fallback = reason


def prepare(
    full: KSpace, calibrated: Calibrated, number: int, seed: int, scale: float | None
) -> Slice:
    """A slice with its scale, or with the reason why it cannot be sampled.

    Parameters
    ----------
    full : KSpace
        The slice on the matrix of the image.
    calibrated : Calibrated
        Its coil maps and noise; not changed.
    number, seed : int
    scale : float or None
        Image value that the prior sees as 1; None takes the 99th percentile of the coil-combined
        zero-filled image.
    """
    box = calibrated.box
    result = Slice(
        full,
        box,
        calibrated.kspace,
        copy.copy(calibrated.noise),  # it is raised as the slice is sampled
        calibrated.maps,
        number,
        seed,
    )
    if calibrated.problem is not None:
        result.fall_back(calibrated.problem)
    elif result.maps is not None:
        if scale is None:
            image = zero_filled(result.kspace.values, result.maps[0])
            result.scale = float(np.percentile(np.abs(image), 99))
        else:
            result.scale = scale / full.unit * box.factor
        if result.scale > 0:
            result.noise.apply_floor(result.scale)
        else:
            result.fall_back("the image is zero")
    return result
