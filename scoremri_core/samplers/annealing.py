"""What the annealed samplers share: units, a schedule of noise levels, the score at each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser, denoise

# told the number of noise levels done, of how many, and x (frame, sample, set, y, x) after each
OnLevel = Callable[[int, int, Tensor], None]


def no_callback(level: int, levels: int, x: Tensor) -> None:
    """Tell nobody of a noise level."""


def geometric(first: float, last: float, count: int) -> list[float]:
    """`count` levels from `first` to `last` by a constant factor; one level alone is the last.

    Raises
    ------
    InputError : levels that do not fall, or are not positive.

    Examples
    --------
    >>> [round(sigma, 2) for sigma in geometric(2, 0.02, 3)]
    [2.0, 0.2, 0.02]
    """
    if not 0 < last <= first:
        raise InputError(
            f"sigma_min, sigma_max are {last:g}, {first:g}: expected 0 < sigma_min <= sigma_max"
        )
    return [float(sigma) for sigma in np.geomspace(first, last, count)] if count > 1 else [last]


def in_image_units(
    operator: SenseOperator, data: Tensor, sigma_n: Tensor
) -> tuple[SenseOperator, Tensor, Tensor]:
    """The same scan with |A| at most 1, so that noise of the data and of the image compare.

    Whitening gives maps (and with them sigma_n) the scale of the scanner's numbers.  An annealed
    likelihood adds a noise level of the image to sigma_n, and means nothing unless both have one
    unit: with |A| = 0.2 the data would count 25 times too little until the last level.

    Parameters
    ----------
    operator, data, sigma_n : as in `sample_posterior`.
    """
    # a bound of |A|, since no FFT enlarges anything, and of the mask only the weight does
    norm = operator.maps.abs().square().sum((1, 2)).amax((-2, -1)).sqrt()
    if operator.weight is not None:
        norm = norm * operator.weight.amax((-2, -1)).sqrt()
    spread = norm.view(-1, 1, 1, 1)
    maps = operator.maps / spread[..., None]
    unit = SenseOperator(maps, operator.mask[:, 0, 0], operator.weight)
    return unit, data / spread, sigma_n / norm


def score(prior: Denoiser, x: Tensor, sigma: float, support: Tensor) -> Tensor:
    """The gradient of log p_sigma in each real component, (D(x, sigma) - x) / sigma^2.

    Parameters
    ----------
    x : complex (frame, sample, set, y, x), with noise of sd sigma in each real component.
    support : bool (frame, 1, set, y, x); outside of it the image is zero by definition.

    Notes
    -----
    Tweedie's formula (Robbins 1956; Efron, JASA 106:1602-1614, 2011).
    """
    denoised = denoise(prior, x.reshape(-1, *x.shape[-2:]), sigma)
    return (torch.where(support, denoised.view(x.shape), 0) - x) / sigma**2
