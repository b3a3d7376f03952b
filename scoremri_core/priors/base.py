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


@runtime_checkable
class SpectralDenoiser(Protocol):
    """A prior that knows at which spatial frequencies its error lies."""

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor | None:
        """Relative power of the error at each spatial frequency, centred (y, x), mean 1.

        None where it was not measured.
        """


@runtime_checkable
class StationaryPrior(Protocol):
    """A prior that knows the mean power spectrum of its images."""

    def image_spectrum(self, shape: tuple[int, int]) -> Tensor | None:
        """Variance of each real component of an image's centred orthonormal k-space, (y, x).

        None where it was not measured.
        """


def error_spectrum(prior: Denoiser, sigma: float, shape: tuple[int, int]) -> Tensor | None:
    """Relative power of the denoiser's error at each spatial frequency; None takes it as white."""
    return prior.error_spectrum(sigma, shape) if isinstance(prior, SpectralDenoiser) else None


def denoise(prior: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """E[x0 | x], complex (batch, y, x), at one noise level or (batch,) of them."""
    sigmas = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
    # a foreign prior may compute in double precision, or in NumPy
    return torch.as_tensor(prior.denoise(x, sigmas), device=x.device).to(x.dtype)


def denoise_with_variance(
    prior: Denoiser, x0: Tensor, e: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Denoise x = x0 + sigma e, and tell the error variance of each real component.

    For a prior that does not tell its error, the variance is found from the very noise that was
    added: by Tweedie's formula the posterior covariance is sigma^2 times the denoiser's Jacobian
    J, and by Stein's lemma E <e, D(x0 + sigma e) - x0> = sigma tr J, whatever x0 is.  It costs no
    evaluation, and is as good as the number of pixels is large.

    Parameters
    ----------
    x0, e : complex (batch, y, x); e with sd 1 in each real component, independent of x0.
    sigma : noise level, one or (batch,).

    Returns
    -------
    complex (batch, y, x) and real (batch, y, x).
    """
    levels = torch.as_tensor(sigma, dtype=x0.real.dtype, device=x0.device).expand(len(x0))
    planes = levels.view(-1, 1, 1)
    x = x0 + planes * e
    if isinstance(prior, VarianceDenoiser):
        return prior.denoise_with_variance(x, levels)
    denoised = denoise(prior, x, levels)
    trace = ((denoised - x0) * e.conj()).real.mean((-2, -1), keepdim=True) / (2 * planes)
    # between a thousandth of the noise, for lack of precision, and all of it
    return denoised, (planes**2 * trace.clamp(1e-3, 1.0)).expand(x.shape)
