"""What a prior is: something that denoises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_kspace

RINGS = 16  # of spatial frequencies, up to Nyquist's
PRIOR_POINTS = 1.0
LEAST_POWER = 0.1


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
    """E[x0 | x], complex (batch, y, x), at one noise level or (batch,) of them.

    Raises
    ------
    InputError : the prior returns another shape, or real values.
    """
    sigmas = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
    # a foreign prior may compute in double precision, or in NumPy
    denoised = torch.as_tensor(prior.denoise(x, sigmas), device=x.device)
    if denoised.shape != x.shape or not denoised.is_complex():
        kind = "complex" if denoised.is_complex() else "real"
        raise InputError(
            f"prior {getattr(prior, 'name', type(prior).__name__)}: denoise returned {kind} values "
            f"of shape {tuple(denoised.shape)}: expected complex ones of shape {tuple(x.shape)}"
        )
    return denoised.to(x.dtype)


def denoise_with_variance(
    prior: Denoiser, x0: Tensor, e: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The first two of `denoise_with_error`."""
    return denoise_with_error(prior, x0, e, sigma)[:2]


def denoise_with_error(
    prior: Denoiser, x0: Tensor, e: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Denoise x = x0 + sigma e, and tell the error variance of each real component.

    For a prior that does not tell its error, the variance is found from the very noise that was
    added: by Tweedie's formula the posterior covariance is sigma^2 times the denoiser's Jacobian
    J, and by Stein's lemma E <e, D(x0 + sigma e) - x0> = sigma tr J, whatever x0 is; so it is in
    each ring of spatial frequencies.  It costs no evaluation, and is as good as the number of
    pixels is large.

    Parameters
    ----------
    x0, e : complex (batch, y, x); e with sd 1 in each real component, independent of x0.
    sigma : noise level, one or (batch,).

    Returns
    -------
    denoised, complex (batch, y, x); its error variance, real (batch, y, x); and, where it was
    found by Stein's lemma, the relative power of the error at each spatial frequency, centred
    (batch, y, x) with mean 1, else None.
    """
    levels = torch.as_tensor(sigma, dtype=x0.real.dtype, device=x0.device).expand(len(x0))
    planes = levels.view(-1, 1, 1)
    x = x0 + planes * e
    if isinstance(prior, VarianceDenoiser):
        return *prior.denoise_with_variance(x, levels), None
    denoised = denoise(prior, x, levels)
    mean, gain = (part / planes for part in _stein(denoised - x0, e))
    # between a thousandth of the noise, for lack of precision, and all of it; and no frequency is
    # taken to be known so well, on the word of a few points, that the data would not count there
    mean = mean.clamp(1e-3, 1.0)
    gain = gain.clamp(max=1.0).maximum(LEAST_POWER * mean)
    spectrum = gain / gain.mean((-2, -1), keepdim=True)
    return denoised, (planes**2 * mean).expand(x.shape), spectrum


def _stein(change: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """<e, change> over <e, e>: of all, (batch, 1, 1), and by spatial frequency, (batch, y, x)."""
    ny, nx = e.shape[-2:]
    y, x = (torch.arange(n, device=e.device) - n // 2 for n in (ny, nx))
    rings = min(RINGS, max(1, min(ny, nx) // 2))
    radius = (torch.hypot(y[:, None] / ny, x[None, :] / nx) * 2 * rings).flatten()
    # a point belongs to the two rings beside it, to each the more the nearer it is
    inner = radius.long()
    outer_share = radius - inner

    def by_ring(k: Tensor) -> Tensor:
        total = k.new_zeros(len(k), int(inner.max()) + 2)
        total.index_add_(1, inner, k.flatten(1) * (1 - outer_share))
        return total.index_add_(1, inner + 1, k.flatten(1) * outer_share)

    waves, changes = to_kspace(e), to_kspace(change)
    common, power = by_ring((changes * waves.conj()).real), by_ring(waves.abs().square())
    # few points say little: a ring starts from what all of them say
    mean = common.sum(1, keepdim=True) / power.sum(1, keepdim=True)
    ratio = (common + PRIOR_POINTS * mean) / (power + PRIOR_POINTS)
    interpolated = torch.lerp(ratio[:, inner], ratio[:, inner + 1], outer_share)
    return mean[..., None], interpolated.view(-1, ny, nx)
