"""A mixture of Gaussians, whose denoiser and posterior have a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from scoremri_core.mri.fourier import to_image, to_kspace


class GaussianMixturePrior:
    """Mixture of stationary complex Gaussians with different means.

    Parameters
    ----------
    weights : float tensor, (component,)
        Probabilities, normalised to a sum of 1.
    means : complex64 tensor, (component, y, x)
    spectra : float tensor, (component, y, x)
        Variance of each real component of the centred orthonormal k-space about the mean.
    """

    def __init__(self, weights: Tensor, means: Tensor, spectra: Tensor) -> None:
        self.weights = weights / weights.sum()
        self.means = means
        self.spectra = spectra
        self._kmeans = to_kspace(means)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], the Wiener filters weighted by the probabilities given x."""
        apart = self._apart(x)
        share = self._probabilities(apart, sigma)[..., None, None]
        return to_image((share * self._filtered(apart, sigma)).sum(1))

    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and the variance of each real component given x, real (batch, y, x).

        The sum of the variance within components, the same in every pixel, and between components.
        """
        apart = self._apart(x)
        share = self._probabilities(apart, sigma)[..., None, None]
        parts = to_image(self._filtered(apart, sigma))
        denoised = (share * parts).sum(1)
        within = (self._gain(sigma) * sigma.view(-1, 1, 1, 1) ** 2).mean((-2, -1), keepdim=True)
        disagreement = (parts - denoised[:, None]).abs().square() / 2
        return denoised, (share * (within + disagreement)).sum(1)

    def probabilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return p(component | x).

        Parameters
        ----------
        x : complex tensor, (batch, y, x)
        sigma : float tensor, (batch,)

        Returns
        -------
        float tensor, (batch, component)
        """
        return self._probabilities(self._apart(x), sigma)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return log p_sigma(x) up to a constant.

        Parameters
        ----------
        x : complex tensor, (batch, y, x)
        sigma : float tensor, (batch,)

        Returns
        -------
        float tensor, (batch,)
        """
        return torch.logsumexp(self._log_joint(self._apart(x), sigma), 1)

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor:
        """Return the relative error power within components at each frequency, mean 1."""
        power = (self.spectra / (self.spectra + sigma**2)).mean(0)
        return power / power.mean()

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw images.

        Parameters
        ----------
        count : int
            Number of images.
        generator : torch.Generator

        Returns
        -------
        complex tensor, (count, y, x)
        """
        kinds = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        e = torch.randn(count, *self.spectra.shape[1:], 2, generator=generator)
        return self.means[kinds] + to_image(self.spectra[kinds].sqrt() * torch.view_as_complex(e))

    # k-space (batch, component, y, x) about each mean
    def _apart(self, x: Tensor) -> Tensor:
        return to_kspace(x)[:, None] - self._kmeans.to(x.device)

    def _gain(self, sigma: Tensor) -> Tensor:
        spectra = self.spectra.to(sigma.device)
        return spectra / (spectra + sigma.view(-1, 1, 1, 1) ** 2)

    def _filtered(self, apart: Tensor, sigma: Tensor) -> Tensor:
        return self._kmeans.to(apart.device) + self._gain(sigma) * apart

    def _probabilities(self, apart: Tensor, sigma: Tensor) -> Tensor:
        return torch.softmax(self._log_joint(apart, sigma), 1).to(apart.real.dtype)

    def _log_joint(self, apart: Tensor, sigma: Tensor) -> Tensor:
        # double precision: small differences of large sums over pixels
        variance = self.spectra.to(apart.device) + sigma.view(-1, 1, 1, 1) ** 2
        power = apart.real.square() + apart.imag.square()
        energy = (power / variance / 2 + variance.log()).sum((-2, -1), dtype=torch.float64)
        return self.weights.to(apart.device).double().log() - energy
