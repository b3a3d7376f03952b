"""Preconditioned unadjusted Langevin dynamics: a check on the default sampler."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser
from scoremri_core.samplers.annealing import OnLevel, geometric, no_callback, score
from scoremri_core.samplers.conjugate_gradients import conjugate_gradients
from scoremri_core.samplers.random_numbers import SampleNoise


@dataclass(frozen=True)
class PulaOptions:
    """Options of preconditioned unadjusted Langevin dynamics.

    Attributes
    ----------
    steps : noise levels; with one alone nothing is annealed, and sigma_min is that level.
    inner_steps : steps at each noise level, each one denoiser evaluation.
    sigma_max, sigma_min : first and last noise level, in units of the prior.
    step_size : of a unit the preconditioner makes; stable below 2.
    tolerance : residual of the linear solves.
    """

    steps: int = 100
    inner_steps: int = 2
    sigma_max: float = 2.0
    sigma_min: float = 0.01
    step_size: float = 1.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.inner_steps < 1:
            raise InputError(f"inner_steps is {self.inner_steps}: expected at least 1")
        if not 0 < self.step_size < 2:
            raise InputError(f"step_size is {self.step_size}: expected above 0 and below 2")


def sample_pula(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: PulaOptions,
    on_level: OnLevel = no_callback,
) -> tuple[Tensor, int]:
    """Draw samples of p(x | y) by annealed, preconditioned Langevin dynamics.

    At each noise level sigma the target is p_sigma(x) p(y | x): the prior is annealed, the
    likelihood exact.  With M = A^H A / s^2 + 1 / sigma^2, of which the log-density's curvature is
    at most as large in any direction, and w drawn from N(0, M^-1) by perturb-and-solve,

        u <- u + eta M^-1 [f(x) + A^H (y - A x) / s^2] + sqrt(2 eta) w,   x = u + sqrt(eta / 2) w

    where f is the score (D(x, sigma) - x) / sigma^2.  Evaluating the drift at x rather than at u
    makes the variance of a Gaussian target exact at any step size (Leimkuhler and Matthews, Appl.
    Math. Res. Express 2013:34-56; Vilmart, SIAM J. Sci. Comput. 37:A201-A220, 2015).

    Neither the variance of the denoiser's error nor a Gaussian approximation of p(x0 | x) enters,
    so that its agreement with the default sampler says something about both.

    Parameters and return value are those of `sample_posterior`.
    """
    frames, sets, coils, ny, nx = operator.maps.shape
    images = (frames, noise.samples, sets, ny, nx)
    weight = (1 / sigma_n**2).view(-1, 1, 1, 1, 1)
    seen = operator.adjoint(data[:, None])
    eta = options.step_size
    first = options.sigma_max if options.steps > 1 else options.sigma_min
    levels = geometric(first, options.sigma_min, options.steps)

    def half_step() -> Tensor:
        """sqrt(eta / 2) w."""
        shaken = weight.sqrt() * operator.adjoint(noise.complex_normal(coils, ny, nx))
        shaken = shaken + noise.complex_normal(sets, ny, nx) / sigma
        return (eta / 2) ** 0.5 * solve(shaken.expand(images))

    u = torch.zeros(images, dtype=data.dtype, device=data.device)
    for i, sigma in enumerate(levels, start=1):
        solve = partial(_solve, operator, weight, 1 / sigma**2, options.tolerance)
        for _ in range(options.inner_steps):
            half = half_step()
            x = u + half
            drift = weight * (seen - operator.normal(x)) + score(prior, x, sigma, operator.support)
            u = x + half + eta * solve(drift)
        on_level(i, len(levels), x)
    x = u + half_step()
    return torch.where(operator.support, x, 0), len(levels) * options.inner_steps


def _solve(
    operator: SenseOperator, weight: Tensor, precision: float, tolerance: float, b: Tensor
) -> Tensor:
    """M^-1 b for M = A^H A / s^2 + precision."""
    diagonal = weight * operator.diagonal + precision
    solution, _ = conjugate_gradients(
        lambda p: weight * operator.normal(p) + precision * p,
        b,
        lambda r: r / diagonal,
        tolerance,
    )
    return solution
