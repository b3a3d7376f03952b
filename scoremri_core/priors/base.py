"""Protocols of priors, and denoising with any of them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_kspace

RINGS = 16  # of spatial frequencies, up to the Nyquist frequency
PRIOR_POINTS = 1.0  # weight of the mean in each ring
LEAST_POWER = 0.1  # of the error in a ring, over the mean


class Denoiser(Protocol):
    """A prior: any object with `denoise`."""

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the posterior mean E[x0 | x] for x = x0 + sigma e.

        See docs/methods.md, Eq. (3).

        Parameters
        ----------
        x : complex tensor, (batch, y, x)
        sigma : float tensor, (batch,)
            Sd of each real component of the noise.

        Returns
        -------
        complex tensor, (batch, y, x)
        """


@runtime_checkable
class VarianceDenoiser(Protocol):
    """A prior that predicts the variance of its error."""

    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and the variance of its error.

        Parameters
        ----------
        x : complex tensor, (batch, y, x)
        sigma : float tensor, (batch,)
            Sd of each real component of the noise.

        Returns
        -------
        denoised : complex tensor, (batch, y, x)
        variance : float tensor, (batch, y, x)
            Of each real component of the error.
        """


@runtime_checkable
class SpectralDenoiser(Protocol):
    """A prior that predicts the power spectrum of its error."""

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor | None:
        """Return the relative power of the error at each spatial frequency.

        Parameters
        ----------
        sigma : float
            Sd of each real component of the noise.
        shape : tuple of int, (y, x)

        Returns
        -------
        float tensor, (y, x), or None
            Centred, mean 1; None if it was not measured.
        """


@runtime_checkable
class StationaryPrior(Protocol):
    """A prior with a known mean power spectrum of its images."""

    def image_spectrum(self, shape: tuple[int, int]) -> Tensor | None:
        """Return the mean power spectrum of the images.

        Parameters
        ----------
        shape : tuple of int, (y, x)

        Returns
        -------
        float tensor, (y, x), or None
            Variance of each real component of centred orthonormal k-space; None if it was not
            measured.
        """


def error_spectrum(prior: Denoiser, sigma: float, shape: tuple[int, int]) -> Tensor | None:
    """Return the relative error power of a prior at each spatial frequency.

    Parameters
    ----------
    prior : Denoiser
    sigma : float
    shape : tuple of int, (y, x)

    Returns
    -------
    float tensor, (y, x), or None
        Of `SpectralDenoiser`; None for a white error.
    """
    return prior.error_spectrum(sigma, shape) if isinstance(prior, SpectralDenoiser) else None


def denoise(prior: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """Denoise and check the result of the prior.

    Parameters
    ----------
    prior : Denoiser
    x : complex tensor, (batch, y, x)
    sigma : float or float tensor, (batch,)

    Returns
    -------
    complex tensor, (batch, y, x)
        E[x0 | x], in the precision of x.

    Raises
    ------
    InputError
        The prior returns another shape, or real values.
    """
    sigmas = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
    # a custom prior may return double precision, or NumPy arrays
    denoised = torch.as_tensor(prior.denoise(x, sigmas), device=x.device)
    if denoised.shape != x.shape or not denoised.is_complex():
        kind = "complex" if denoised.is_complex() else "real"
        raise InputError(
            f"prior {getattr(prior, 'name', type(prior).__name__)}: denoise returned {kind} values "
            f"of shape {tuple(denoised.shape)}: expected complex values of shape {tuple(x.shape)}"
        )
    return denoised.to(x.dtype)


def denoise_with_variance(
    prior: Denoiser, x0: Tensor, e: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Denoise x = x0 + sigma e, and estimate the variance; see `denoise_with_error`.

    Parameters
    ----------
    prior : Denoiser
    x0 : complex tensor, (batch, y, x)
    e : complex tensor, (batch, y, x)
        Sd 1 in each real component, independent of x0.
    sigma : float or float tensor, (batch,)

    Returns
    -------
    denoised : complex tensor, (batch, y, x)
    variance : float tensor, (batch, y, x)
    """
    return denoise_with_error(prior, x0, e, sigma)[:2]


def denoise_with_error(
    prior: Denoiser, x0: Tensor, e: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Denoise x = x0 + sigma e, and estimate the error variance of each real component.

    For a prior without `denoise_with_variance` the variance is estimated from the added noise: by
    Tweedie's formula the posterior covariance is sigma^2 times the denoiser's Jacobian J, and by
    Stein's lemma E <e, D(x0 + sigma e) - x0> = sigma tr J for any x0, also in each ring of spatial
    frequencies (docs/methods.md, Eq. (5)). This takes no further evaluation; its error falls with
    the number of pixels.

    Parameters
    ----------
    prior : Denoiser
    x0 : complex tensor, (batch, y, x)
    e : complex tensor, (batch, y, x)
        Sd 1 in each real component, independent of x0.
    sigma : float or float tensor, (batch,)

    Returns
    -------
    denoised : complex tensor, (batch, y, x)
    variance : float tensor, (batch, y, x)
    spectrum : float tensor, (batch, y, x), or None
        Relative error power at each spatial frequency, centred, mean 1, if estimated by Stein's
        lemma.
    """
    levels = torch.as_tensor(sigma, dtype=x0.real.dtype, device=x0.device).expand(len(x0))
    planes = levels.view(-1, 1, 1)
    x = x0 + planes * e
    if isinstance(prior, VarianceDenoiser):
        return *prior.denoise_with_variance(x, levels), None
    denoised = denoise(prior, x, levels)
    mean, gain = (part / planes for part in _stein(denoised - x0, e))
    # between 0.001 (numerical precision) and 1 of the noise variance; the few points of a ring must
    # not give a variance so small that the data have no weight there
    mean = mean.clamp(1e-3, 1.0)
    gain = gain.clamp(max=1.0).maximum(LEAST_POWER * mean)
    spectrum = gain / gain.mean((-2, -1), keepdim=True)
    return denoised, (planes**2 * mean).expand(x.shape), spectrum


def _stein(change: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return <e, change> / <e, e>: in total, (batch, 1, 1), and by frequency, (batch, y, x)."""
    ny, nx = e.shape[-2:]
    y, x = (torch.arange(n, device=e.device) - n // 2 for n in (ny, nx))
    rings = min(RINGS, max(1, min(ny, nx) // 2))
    radius = (torch.hypot(y[:, None] / ny, x[None, :] / nx) * 2 * rings).flatten()
    # linear interpolation between the two neighbouring rings
    inner = radius.long()
    outer_share = radius - inner

    def by_ring(k: Tensor) -> Tensor:
        total = k.new_zeros(len(k), int(inner.max()) + 2)
        total.index_add_(1, inner, k.flatten(1) * (1 - outer_share))
        return total.index_add_(1, inner + 1, k.flatten(1) * outer_share)

    waves, changes = to_kspace(e), to_kspace(change)
    common, power = by_ring((changes * waves.conj()).real), by_ring(waves.abs().square())
    # rings of few points are shrunk towards the mean
    mean = common.sum(1, keepdim=True) / power.sum(1, keepdim=True)
    ratio = (common + PRIOR_POINTS * mean) / (power + PRIOR_POINTS)
    interpolated = torch.lerp(ratio[:, inner], ratio[:, inner + 1], outer_share)
    return mean[..., None], interpolated.view(-1, ny, nx)
