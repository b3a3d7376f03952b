"""Noise levels of the default sampler, and how many samples have each in common."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoremri_core.samplers.annealing import geometric

# first and last level over the sd that the measurements leave open, a linear estimate's ...
FIRST, LAST = 12.0, 0.4
# ... and least and most of each: priors know no others, and at last leave less open than that
FIRST_WITHIN = 0.1, 2.0
LAST_WITHIN = 0.01, 0.015
# so many samples have those levels in common that are above so many of that sd where the last is
# LAST of it; where it is held within LAST_WITHIN, the levels at those places are others
FAMILIES = ((4, 2.5), (2, 1.0))


class Level(NamedTuple):
    """One noise level.

    Attributes
    ----------
    sigma : of each frame, (frame,), in units of the prior.
    family : samples that have it in common.
    """

    sigma: Tensor
    family: int


def schedule(uncertainty: Tensor, options: Any) -> list[Level]:
    """Falling noise levels, from one that hides what the start errs by.

    What a sample was before noise above the sd that the measurements leave open is soon forgotten:
    the denoiser passes on variance / sigma^2 of it (the derivative of Tweedie's formula), and so
    does each level after that.  Hence balanced samples have the first levels in common.  What is
    left of these makes two samples alike, and balanced numbers make them unlike; together the sd
    of eight is right (`test_balanced_samples_of_a_gaussian_have_its_mean_and_its_sd`).  Nothing is
    shared where the sd is not known, or sigma_max or sigma_min was given.

    Parameters
    ----------
    uncertainty : sd that the measurements leave open, (frame,), infinite where it is not known.
    options : `PosteriorOptions`.

    Raises
    ------
    InputError : levels that do not fall, or are not positive.
    """
    left = [float(sd) for sd in uncertainty]
    levels = [
        # one step alone is the first
        geometric(*_bounds(sd, options), max(2, options.steps))[: options.steps]
        for sd in left
    ]
    usual_bounds = options.sigma_max is None and options.sigma_min is None
    shared = usual_bounds and options.balanced and all(map(math.isfinite, left))
    # not by the frames' own levels, or a frame would depend on those in its company
    usual = geometric(FIRST, LAST, max(2, options.steps))[: options.steps]
    families = [_family(over) if shared else 1 for over in usual[:-1]] + [1]
    sigmas = torch.tensor(levels, device=uncertainty.device).T
    return list(map(Level, sigmas, families))


def _bounds(sd: float, options: Any) -> tuple[float, float]:
    last = options.sigma_min
    if last is None:
        last = _within(LAST_WITHIN, LAST * sd) if math.isfinite(sd) else LAST_WITHIN[0]
    first = options.sigma_max
    if first is None:
        # below a few times the last level, no noise would be left
        least, most = (max(bound, 2 * last) for bound in FIRST_WITHIN)
        first = _within((least, most), FIRST * sd)
    return first, last


def _family(over: float) -> int:
    return next((size for size, least in FAMILIES if over > least), 1)


def _within(bounds: tuple[float, float], value: float) -> float:
    return min(max(value, bounds[0]), bounds[1])
