"""Annealed Langevin dynamics (Jalal et al., NeurIPS 2021): the paper's, and its code's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser
from scoremri_core.samplers.annealing import OnLevel, geometric, in_image_units, no_callback, score
from scoremri_core.samplers.random_numbers import SampleNoise

UPDATES = ("paper", "published")


@dataclass(frozen=True)
class LangevinOptions:
    """Options of annealed Langevin dynamics.

    Noise levels and steps are those of the authors' T2 brain runs, 3,975 in all: of a model's 2,311
    geometric levels from 232 to 0.0066 they visit 1156 to 2310, with 3 steps at each up to level
    1800 and 4 after that.

    Attributes
    ----------
    update : "paper", Eq. 4, which samples the posterior; or "published", what the published code
        (csgm-mri-langevin) does instead.  See `sample_langevin`.
    steps : noise levels.
    inner_steps : steps at each noise level, each one denoiser evaluation.
    late_sigma : there is one step more at each noise level below this (between the levels 1800 and
        1801 of that model); 0 for none.
    sigma_max, sigma_min : first and last noise level, in units of the prior.
    step_size : of "paper", in units of the inverse curvature; stable below 2.
    averaged : of "paper": average z with that of the step before; False is Eq. 4 to the letter.
    step_lr : of "published": its step at the last noise level.
    mse : of "published": norm of the data's gradient over the norm of the score.
    """

    update: str = "paper"
    steps: int = 1155
    inner_steps: int = 3
    late_sigma: float = 0.0664
    sigma_max: float = 1.23
    sigma_min: float = 0.0066
    step_size: float = 1.0
    averaged: bool = True
    step_lr: float = 5e-5
    mse: float = 5.0

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            raise InputError(f"update {self.update!r}: expected one of {', '.join(UPDATES)}")
        if self.inner_steps < 1:
            raise InputError(f"inner_steps is {self.inner_steps}: expected at least 1")
        if not 0 < self.step_size < 2:
            raise InputError(f"step_size is {self.step_size}: expected above 0 and below 2")
        if not self.step_lr > 0 or not self.mse >= 0:
            raise InputError("step_lr, mse: expected positive numbers")

    def schedule(self) -> list[float]:
        """The noise level of each step."""
        return [
            sigma
            for sigma in geometric(self.sigma_max, self.sigma_min, self.steps)
            for _ in range(self.inner_steps + (sigma < self.late_sigma))
        ]


def sample_langevin(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: LangevinOptions,
    on_level: OnLevel = no_callback,
) -> tuple[Tensor, int]:
    """Draw samples of p(x | y) by annealed Langevin dynamics.

    The paper's Eq. 4 at each noise level sigma, with the score f(x) = (D(x, sigma) - x) / sigma^2
    and z of sd 1 in each real component:

        x <- x + eta [f(x) + A^H (y - A x) / (gamma^2 + s^2)] + sqrt(2 eta) z

    gamma^2 = sigma^2 - sigma_min^2, so that the data count in full at the last level.  The paper
    leaves eta open; it is step_size / (1 / sigma^2 + 1 / (gamma^2 + s^2)), where, in units in
    which |A| is at most 1, the denominator bounds the curvature of the log-density: steps below
    2 are stable.

    With a new z in each step the variance comes out too large by up to 1 / (1 - step_size / 2), in
    the stiffest direction, at any number of steps; and since that is noise at each level, a network
    told sigma takes what is beyond it for image, and keeps it.  The average of two consecutive z
    makes the variance of a Gaussian target exact at any step size (see `sample_pula`).

    The published code differs: eta = step_lr (sigma / sigma_min)^2, and the data's gradient
    A^H (y - A x) is rescaled to `mse` times the norm of the score.  That is the gradient of no
    log-density, and nothing in it knows the noise of the data.  Here norms are taken sample by
    sample, rather than over the whole batch, so that samples do not depend on one another; and
    x starts as noise of the first level, rather than uniform between 0 and 1.  Its parameters
    (`mse` and `sampling.step_lr` of configs/file/brain_T2.yaml) are for a network whose score is
    bounded by its normalisation layers: with a score that grows with x, as a Gaussian's does, the
    rescaled gradient feeds on itself and x diverges.

    Parameters and return value are those of `sample_posterior`.
    """
    operator, data, sigma_n = in_image_units(operator, data, sigma_n)
    frames, sets, _, ny, nx = operator.maps.shape
    images = (frames, noise.samples, sets, ny, nx)
    s2 = (sigma_n**2).view(-1, 1, 1, 1, 1)
    seen = operator.adjoint(data[:, None])
    levels = options.schedule()
    averaged = options.averaged and options.update == "paper"
    x = levels[0] * noise.complex_normal(sets, ny, nx).expand(images)
    z = noise.complex_normal(sets, ny, nx) if averaged else x
    for level, (sigma, steps) in enumerate(groupby(levels), start=1):
        tempered = s2 + sigma**2 - levels[-1] ** 2
        for _ in steps:
            drift = score(prior, x, sigma, operator.support)
            gradient = seen - operator.normal(x)
            if options.update == "paper":
                eta = options.step_size / (1 / sigma**2 + 1 / tempered)
                drift = drift + gradient / tempered
            else:
                eta = torch.full_like(s2, options.step_lr * (sigma / levels[-1]) ** 2)
                drift = drift + options.mse * _norm(drift) / _norm(gradient) * gradient
            last, z = z, noise.complex_normal(sets, ny, nx)
            x = x + eta * drift + (2 * eta).sqrt() * ((z + last) / 2 if averaged else z)
        on_level(level, options.steps, x)
    return torch.where(operator.support, x, 0), len(levels)


def _norm(x: Tensor) -> Tensor:
    # in double precision, or rounding would depend on how a batch is cut into threads
    total = torch.view_as_real(x).square().sum((2, 3, 4, 5), dtype=torch.float64)
    return total.sqrt().clamp_min(1e-30).to(x.real.dtype).view(*total.shape, 1, 1, 1)
