"""The default sampler: annealed exact draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoremri_core.conjugate_gradients import conjugate_gradients
from scoremri_core.priors.base import Denoiser, denoise_with_variance
from scoremri_core.samplers.noise import SampleNoise
from scoremri_core.sense import SenseOperator


@dataclass(frozen=True)
class PosteriorOptions:
    """Options of the default sampler.

    Attributes
    ----------
    steps : noise levels, each one denoiser evaluation.
    sigma_max, sigma_min : first and last noise level, in units of the prior.
    variance_scale : factor on the prior's error variance; None takes the prior's own.
    tolerance : residual of the linear solves; a loose one biases the variance of the samples.
    """

    steps: int = 12
    sigma_max: float = 2.0
    sigma_min: float = 0.01
    variance_scale: float | None = None
    tolerance: float = 1e-3


def noise_levels(options: PosteriorOptions) -> list[float]:
    """A geometric schedule from sigma_max to sigma_min."""
    if options.steps == 1:
        return [options.sigma_max]
    ratio = (options.sigma_min / options.sigma_max) ** (1 / (options.steps - 1))
    return [options.sigma_max * ratio**i for i in range(options.steps)]


def sample_posterior(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: PosteriorOptions,
) -> tuple[Tensor, int]:
    """Draw samples of p(x | y) by annealed exact draws.

    At each noise level sigma the prior's Gaussian approximation N(D(x, sigma), v) of
    p(x0 | x) is multiplied by the likelihood and an x0 is drawn exactly, by perturb-and-solve
    (Papandreou and Yuille 2010):

        (A^H A / s^2 + 1/v) x0 = A^H (y + s e1) / s^2 + (D + sqrt(v) e2) / v

    after which the next x is x0 + sigma_next e.  With an exact denoiser of a Gaussian prior the
    last x0 is a draw of the exact posterior.

    Parameters
    ----------
    operator : A, for all frames.
    data : y, (frame, coil, y, x), zero where not measured, in units of the prior.
    sigma_n : s, (frame,), sd of each real component of the noise in `data`.
    prior : the denoiser; it sees images as (batch, y, x).
    noise : the random streams of the samples.
    options : schedule and tolerance.

    Returns
    -------
    samples (frame, sample, set, y, x), and the number of denoiser evaluations per sample.
    """
    frames, sets, coils, ny, nx = operator.maps.shape
    weight = (1 / sigma_n**2).view(-1, 1, 1, 1, 1)
    spread = sigma_n.view(-1, 1, 1, 1, 1)
    sampled = operator.diagonal() * weight
    scale = options.variance_scale
    if scale is None:
        scale = getattr(prior, "variance_scale", 1.0)

    levels = noise_levels(options)
    x0 = torch.zeros((), dtype=data.dtype, device=data.device).expand(
        frames, len(noise.generators), sets, ny, nx
    )
    for sigma in levels:
        e = noise.complex_normal(sets, ny, nx).expand(x0.shape)
        denoised, variance = denoise_with_variance(
            prior, x0.reshape(-1, ny, nx), e.reshape(-1, ny, nx), sigma
        )
        # where no coil sees anything the image is zero by definition
        denoised = torch.where(operator.support, denoised.view(x0.shape), 0)
        precision = torch.where(operator.support, 1 / (scale * variance.view(x0.shape)), 1e12)

        measured = data[:, None] + spread * noise.complex_normal(coils, ny, nx)
        b = weight * operator.adjoint(measured) + precision * denoised
        b = b + precision.sqrt() * noise.complex_normal(sets, ny, nx)
        x0, _ = conjugate_gradients(
            lambda p, precision=precision: weight * operator.normal(p) + precision * p,  # type: ignore[misc]
            b,
            denoised,
            1 / (sampled + precision),
            options.tolerance,
        )
    return x0, len(levels)
