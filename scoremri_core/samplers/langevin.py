"""Annealed Langevin dynamics (Jalal et al., NeurIPS 2021), of the paper and of its code."""

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

    The defaults are the 3,975 evaluations of the authors' T2 brain runs: levels 1156 to 2310 of a
    model's 2,311 geometric levels from 232 to 0.0066, with 3 steps each up to level 1800 and 4
    after it.

    Attributes
    ----------
    update : str
        "paper": Eq. 4, which samples the posterior. "published": the update of the published code
        (csgm-mri-langevin). See `sample_langevin`.
    steps : int
        Noise levels.
    inner_steps : int
        Steps per noise level, one denoiser evaluation each.
    late_sigma : float
        One more step at each noise level below this; 0 for none.
    sigma_max, sigma_min : float
        First and last noise level, in units of the prior.
    step_size : float
        Of "paper", in units of the inverse curvature; stable below 2.
    averaged : bool
        Of "paper": average z with that of the previous step. False is Eq. 4 as published.
    step_lr : float
        Of "published": step at the last noise level.
    mse : float
        Of "published": norm of the data gradient over the norm of the score.

    Raises
    ------
    InputError
        An option is out of range.
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
        """Return the noise level of each step.

        Returns
        -------
        list of float
        """
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
    """Draw samples of p(x | y) by annealed Langevin dynamics, docs/methods.md, Eq. (23).

    Equation 4 of the paper at each noise level sigma, with the score
    f(x) = (D(x, sigma) - x) / sigma^2 and z of sd 1 in each real component:

        x <- x + eta [f(x) + A^H (y - A x) / (gamma^2 + s^2)] + sqrt(2 eta) z

    with gamma^2 = sigma^2 - sigma_min^2, so that the last level has the full data weight, and
    eta = step_size / (1 / sigma^2 + 1 / (gamma^2 + s^2)), which the paper leaves open. With
    |A| <= 1 the denominator bounds the curvature of the log-density: step sizes below 2 are stable.

    Parameters
    ----------
    operator : SenseOperator
        A, of all frames.
    data : complex64 tensor, (frame, coil, y, x)
        y, zero where not sampled, in units of the prior.
    sigma_n : float tensor, (frame,)
        Sd s of each real component of the noise in `data`.
    prior : Denoiser
        Called with images (batch, y, x).
    noise : SampleNoise
        Random streams of the samples.
    options : LangevinOptions
    on_level : callable, optional
        Called after each noise level with its number, the number of levels, and x.

    Returns
    -------
    samples : complex64 tensor, (frame, sample, set, y, x)
    evaluations : int
        Denoiser evaluations per sample.

    Raises
    ------
    InputError
        Noise levels that increase or are not positive.

    Notes
    -----
    With a new z in each step the variance is too large by a factor of up to
    1 / (1 - step_size / 2), in the stiffest direction, for any number of steps. A network takes
    noise in excess of sigma for image and keeps it. The average of two consecutive z makes the
    variance of a Gaussian target exact at any step size (see `sample_pula`).

    The published code sets eta = step_lr (sigma / sigma_min)^2 and scales the data gradient
    A^H (y - A x) to `mse` times the norm of the score, independent of the noise of the data. That
    is not the gradient of a log-density. Unlike there, norms are taken per sample, so that samples
    do not depend on the batch, and x starts as noise of the first level, not uniform in [0, 1]. Its
    parameters (`mse` and `sampling.step_lr` of configs/file/brain_T2.yaml) suit a network whose
    normalisation layers bound the score; x diverges for a score that grows with x, such as a
    Gaussian's.

    References
    ----------
    .. [1] Jalal A et al. Robust compressed sensing MRI with deep generative priors. NeurIPS (2021).
    """
    operator, data, sigma_n = in_image_units(operator, data, sigma_n)
    frames, sets, _, ny, nx = operator.maps.shape
    images = (frames, noise.samples, sets, ny, nx)
    s2 = (sigma_n**2).view(-1, 1, 1, 1, 1)
    adjoint = operator.adjoint(data[:, None])
    levels = options.schedule()
    averaged = options.averaged and options.update == "paper"
    x = levels[0] * noise.complex_normal(sets, ny, nx).expand(images)
    z = noise.complex_normal(sets, ny, nx) if averaged else x
    for level, (sigma, steps) in enumerate(groupby(levels), start=1):
        tempered = s2 + sigma**2 - levels[-1] ** 2
        for _ in steps:
            drift = score(prior, x, sigma, operator.support)
            gradient = adjoint - operator.normal(x)
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
    # double precision: rounding must not depend on the threads' split
    total = torch.view_as_real(x).square().sum((2, 3, 4, 5), dtype=torch.float64)
    return total.sqrt().clamp_min(1e-30).to(x.real.dtype).view(*total.shape, 1, 1, 1)
