"""Units, noise levels and score, shared by the annealed samplers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser, denoise

# called after each noise level with its number, the number of levels, and x (frame, sample, set,
# y, x)
OnLevel = Callable[[int, int, Tensor], None]


def no_callback(level: int, levels: int, x: Tensor) -> None:
    """Ignore the end of a noise level.

    Parameters
    ----------
    level : int
    levels : int
    x : complex64 tensor, (frame, sample, set, y, x)
    """


def geometric(first: float, last: float, count: int) -> list[float]:
    """Return a geometric sequence of noise levels; a single level is the last.

    Parameters
    ----------
    first, last : float
        Largest and smallest level.
    count : int
        Number of levels.

    Returns
    -------
    list of float

    Raises
    ------
    InputError
        Levels that increase or are not positive.

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
    """Scale a scan to |A| <= 1, so that noise of data and image have the same unit.

    Whitened maps (and sigma_n) have the scale of the scanner's numbers. An annealed likelihood adds
    a noise level of the image to sigma_n: with |A| = 0.2 the data would be weighted 25 times too
    low until the last level.

    Parameters
    ----------
    operator : SenseOperator
    data : complex64 tensor, (frame, coil, y, x)
    sigma_n : float tensor, (frame,)
        As in `sample_posterior`.

    Returns
    -------
    operator : SenseOperator
    data : complex64 tensor, (frame, coil, y, x)
    sigma_n : float tensor, (frame,)
    """
    # an upper bound of |A|: the FFT is unitary, the mask is scaled by the weight only
    norm = operator.maps.abs().square().sum((1, 2)).amax((-2, -1)).sqrt()
    if operator.weight is not None:
        norm = norm * operator.weight.amax((-2, -1)).sqrt()
    factor = norm.view(-1, 1, 1, 1)
    maps = operator.maps / factor[..., None]
    unit = SenseOperator(maps, operator.mask[:, 0, 0], operator.weight)
    return unit, data / factor, sigma_n / norm


def score(prior: Denoiser, x: Tensor, sigma: float, support: Tensor) -> Tensor:
    """Return the gradient of log p_sigma by Tweedie's formula, (D(x, sigma) - x) / sigma^2.

    See docs/methods.md, Eq. (4).

    Parameters
    ----------
    prior : Denoiser
    x : complex64 tensor, (frame, sample, set, y, x)
        With noise of sd `sigma` in each real component.
    sigma : float
    support : bool tensor, (frame, 1, set, y, x)
        The image is zero outside.

    Returns
    -------
    complex64 tensor, (frame, sample, set, y, x)

    References
    ----------
    .. [1] Efron B. Tweedie's formula and selection bias. JASA 106:1602-1614 (2011).
    """
    denoised = denoise(prior, x.reshape(-1, *x.shape[-2:]), sigma)
    return (torch.where(support, denoised.view(x.shape), 0) - x) / sigma**2
