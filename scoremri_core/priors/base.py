"""What a prior is: something that denoises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Denoiser(Protocol):
    """Any object with `denoise` is a prior."""

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], complex (batch, y, x), for x = x0 + sigma e.

        `sigma` is (batch,), the sd of EACH real component of the noise.
        """


@runtime_checkable
class VarianceDenoiser(Protocol):
    """A prior that also knows the variance of its error."""

    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and the error variance of each real component, real (batch, y, x)."""


def denoise_with_variance(prior: Denoiser, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, int]:
    """Denoised image, error variance of each real component, and evaluations used.

    A prior that does not tell its error is probed once: by Tweedie's second-order formula the
    posterior covariance is sigma^2 times the denoiser's Jacobian, and its trace is estimated
    with one random-sign direction (Hutchinson), image by image.

    Returns
    -------
    complex (batch, y, x), real (batch, y, x), 1 or 2.
    """
    if isinstance(prior, VarianceDenoiser):
        return *prior.denoise_with_variance(x, sigma), 1
    denoised = prior.denoise(x, sigma)
    generator = torch.Generator(x.device).manual_seed(0)
    signs = torch.randint(0, 2, (*x.shape[1:], 2), generator=generator, device=x.device)
    direction = torch.view_as_complex(2.0 * signs - 1)
    step = 0.05 * sigma.view(-1, 1, 1)
    change = (prior.denoise(x + step * direction, sigma) - denoised) / step
    trace = (change * direction.conj()).real.mean((-2, -1), keepdim=True) / 2
    # the error is never larger than the noise nor, for lack of precision, zero
    variance = sigma.view(-1, 1, 1) ** 2 * trace.clamp(1e-4, 1.0)
    return denoised, variance.expand(x.shape), 2
