"""A mixture of Gaussians, whose denoiser and posterior are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from scoremri_core.fourier import to_image, to_kspace
from scoremri_core.priors.gaussian import GaussianPrior


class GaussianMixturePrior:
    """Complex images of one of several kinds, each a mean image and a stationary Gaussian.

    Parameters
    ----------
    weights : (component,) probability of each; they are brought to a sum of 1.
    means : (component, y, x) complex.
    spectra : (component, y, x) variance of each real component of the centred orthonormal
        k-space about the mean.
    """

    def __init__(self, weights: Tensor, means: Tensor, spectra: Tensor) -> None:
        self.weights = weights / weights.sum()
        self.means = means
        self.spectra = spectra

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], the components' Wiener filters by their probability given x."""
        return self.denoise_with_variance(x, sigma)[0]

    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and the variance of each real component given x, real (batch, y, x).

        Within a component the variance is the same in every pixel; what the components disagree
        on is added where they do.
        """
        probability = self.probabilities(x, sigma)
        denoised = torch.zeros_like(x)
        second = torch.zeros_like(x.real)  # about zero, of each real component
        for k, mean in enumerate(self.means.to(x.device)):
            part, variance = GaussianPrior(self.spectra[k]).denoise_with_variance(x - mean, sigma)
            part, share = part + mean, probability[:, k].view(-1, 1, 1)
            denoised = denoised + share * part
            second = second + share * (variance + part.abs().square() / 2)
        return denoised, (second - denoised.abs().square() / 2).clamp_min(0)

    def probabilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """p(component | x), (batch, component)."""
        return torch.softmax(self._log_joint(x, sigma), 1).to(x.real.dtype)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log p_sigma(x) up to a constant, (batch,), whose gradient is the score."""
        return torch.logsumexp(self._log_joint(x, sigma), 1)

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor:
        """Relative power at each spatial frequency, mean 1, within the components."""
        power = (self.spectra / (self.spectra + sigma**2)).mean(0)
        return power / power.mean()

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw images, complex (count, y, x)."""
        kinds = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        e = torch.randn(count, *self.spectra.shape[1:], 2, generator=generator)
        return self.means[kinds] + to_image(self.spectra[kinds].sqrt() * torch.view_as_complex(e))

    def _log_joint(self, x: Tensor, sigma: Tensor) -> Tensor:
        # in double precision: sums over pixels are large, and their differences decide
        variance = self.spectra.to(x.device).double() + sigma.double().view(-1, 1, 1, 1) ** 2
        kspace = to_kspace(x[:, None] - self.means.to(x.device))
        power = torch.view_as_real(kspace).double().square().sum(-1)
        energy = (power / variance / 2 + variance.log()).sum((-2, -1))
        return self.weights.to(x.device).double().log() - energy
