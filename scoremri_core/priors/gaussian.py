"""A stationary Gaussian prior, whose posterior has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from scoremri_core.mri.fourier import to_image, to_kspace


class GaussianPrior:
    """Stationary complex Gaussian images of mean zero.

    Parameters
    ----------
    spectrum : float tensor, (y, x)
        Variance of each real component of the centred orthonormal k-space.
    """

    def __init__(self, spectrum: Tensor) -> None:
        self.spectrum = spectrum

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x] by the Wiener filter."""
        spectrum = self.spectrum.to(x.device)
        gain = spectrum / (spectrum + sigma.view(-1, 1, 1) ** 2)
        return to_image(gain * to_kspace(x))

    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and its mean error variance, the same in every pixel."""
        noise = sigma.view(-1, 1, 1) ** 2
        spectrum = self.spectrum.to(x.device)
        variance = (spectrum * noise / (spectrum + noise)).mean((-2, -1), keepdim=True)
        return self.denoise(x, sigma), variance.expand(x.shape)

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor:
        """Return the relative error power of the Wiener filter at each frequency, mean 1."""
        power = self.spectrum / (self.spectrum + sigma**2)
        return power / power.mean()

    def image_spectrum(self, shape: tuple[int, int]) -> Tensor:
        """Return the spectrum."""
        return self.spectrum

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
        e = torch.randn(count, *self.spectrum.shape, 2, generator=generator)
        return to_image(self.spectrum.sqrt() * torch.view_as_complex(e))
