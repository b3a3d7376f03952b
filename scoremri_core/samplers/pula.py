"""Preconditioned unadjusted Langevin dynamics, an independent check of the default sampler."""

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
    steps : int
        Noise levels; a single one is sigma_min, without annealing.
    inner_steps : int
        Steps per noise level, one denoiser evaluation each.
    sigma_max, sigma_min : float
        First and last noise level, in units of the prior.
    step_size : float
        In units of the inverse preconditioned curvature; stable below 2.
    tolerance : float
        Relative residual of the linear solves.

    Raises
    ------
    InputError
        An option is out of range.
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

    See docs/methods.md, Eq. (24). The target at each noise level sigma is p_sigma(x) p(y | x): the
    prior is annealed, the likelihood exact. With M = A^H A / s^2 + 1 / sigma^2, an upper bound of
    the curvature of the log-density, and w drawn from N(0, M^-1) by perturb-and-solve,

        u <- u + eta M^-1 [f(x) + A^H (y - A x) / s^2] + sqrt(2 eta) w,   x = u + sqrt(eta / 2) w

    where f is the score (D(x, sigma) - x) / sigma^2. Evaluating the drift at x, not at u, makes the
    variance of a Gaussian target exact at any step size [1]_ [2]_.

    The sampler uses neither the error variance of the denoiser nor a Gaussian approximation of
    p(x0 | x), so that its agreement with the default sampler tests both.

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
    options : PulaOptions
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

    References
    ----------
    .. [1] Leimkuhler B, Matthews C. Appl Math Res Express 2013:34-56 (2013).
    .. [2] Vilmart G. SIAM J Sci Comput 37:A201-A220 (2015).
    """
    frames, sets, coils, ny, nx = operator.maps.shape
    images = (frames, noise.samples, sets, ny, nx)
    weight = (1 / sigma_n**2).view(-1, 1, 1, 1, 1)
    adjoint = operator.adjoint(data[:, None])
    eta = options.step_size
    first = options.sigma_max if options.steps > 1 else options.sigma_min
    levels = geometric(first, options.sigma_min, options.steps)

    def half_step() -> Tensor:
        """Draw sqrt(eta / 2) w."""
        perturbation = weight.sqrt() * operator.adjoint(noise.complex_normal(coils, ny, nx))
        perturbation = perturbation + noise.complex_normal(sets, ny, nx) / sigma
        return (eta / 2) ** 0.5 * solve(perturbation.expand(images))

    u = torch.zeros(images, dtype=data.dtype, device=data.device)
    for i, sigma in enumerate(levels, start=1):
        solve = partial(_solve, operator, weight, 1 / sigma**2, options.tolerance)
        for _ in range(options.inner_steps):
            half = half_step()
            x = u + half
            residual = weight * (adjoint - operator.normal(x))
            u = x + half + eta * solve(residual + score(prior, x, sigma, operator.support))
        on_level(i, len(levels), x)
    x = u + half_step()
    return torch.where(operator.support, x, 0), len(levels) * options.inner_steps


def _solve(
    operator: SenseOperator, weight: Tensor, precision: float, tolerance: float, b: Tensor
) -> Tensor:
    """Solve M x = b for M = A^H A / s^2 + precision."""
    diagonal = weight * operator.diagonal + precision
    solution, _ = conjugate_gradients(
        lambda p: weight * operator.normal(p) + precision * p,
        b,
        lambda r: r / diagonal,
        tolerance,
    )
    return solution
