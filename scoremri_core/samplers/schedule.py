"""Noise levels of the default sampler, and how many samples share each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoremri_core.samplers.annealing import geometric

# first and last level over the sd of a linear estimate given the measurements, and their bounds
FIRST, LAST = 12.0, 0.4
FIRST_BOUNDS = 0.1, 2.0
LAST_BOUNDS = 0.01, 0.015
# (samples that share a level, least level over that sd), for a schedule that ends at LAST
SHARED = ((4, 2.5), (2, 1.0))


class Level(NamedTuple):
    """One noise level.

    Attributes
    ----------
    sigma : float tensor, (frame,)
        In units of the prior.
    group : int
        Samples that share one draw.
    """

    sigma: Tensor
    group: int


def schedule(uncertainty: Tensor, options: Any) -> list[Level]:
    """Return decreasing noise levels, the first of which hides the error of the start.

    See docs/methods.md, Eq. (11).

    A sample soon forgets its value before noise above the sd that the measurements leave: the
    denoiser passes on variance / sigma^2 of it (the derivative of Tweedie's formula) at each level.
    Balanced samples therefore share the first levels. The remaining common part makes two samples
    alike, balanced numbers make them unlike; together the sd of eight is right
    (`test_balanced_samples_of_a_gaussian_have_its_mean_and_its_sd`). No level is shared if the sd
    is unknown, or if sigma_max or sigma_min is given.

    Parameters
    ----------
    uncertainty : float tensor, (frame,)
        Sd that the measurements leave, infinite if unknown.
    options : PosteriorOptions

    Returns
    -------
    list of Level

    Raises
    ------
    InputError
        Levels that increase or are not positive.
    """
    sds = [float(sd) for sd in uncertainty]
    levels = [
        # a single step is the first level
        geometric(*_bounds(sd, options), max(2, options.steps))[: options.steps]
        for sd in sds
    ]
    default_bounds = options.sigma_max is None and options.sigma_min is None
    shared = default_bounds and options.balanced and all(map(math.isfinite, sds))
    # independent of the frames, so that a frame does not depend on the batch
    relative = geometric(FIRST, LAST, max(2, options.steps))[: options.steps]
    groups = [_group(level) if shared else 1 for level in relative[:-1]] + [1]
    sigmas = torch.tensor(levels, device=uncertainty.device).T
    return list(map(Level, sigmas, groups))


def _bounds(sd: float, options: Any) -> tuple[float, float]:
    last = options.sigma_min
    if last is None:
        last = _clip(LAST * sd, *LAST_BOUNDS) if math.isfinite(sd) else LAST_BOUNDS[0]
    first = options.sigma_max
    if first is None:
        # at least twice the last level, or there is no noise to remove
        first = _clip(FIRST * sd, *(max(bound, 2 * last) for bound in FIRST_BOUNDS))
    return first, last


def _group(level: float) -> int:
    return next((size for size, least in SHARED if level > least), 1)


def _clip(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
