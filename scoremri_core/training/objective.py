"""Denoising score matching: what is minimised."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training.signed import score_loss

SIGMA_RANGE = (0.003, 6.0)


class Objective(nn.Module):
    """The loss as one module, whose forward pass can be compiled and shared among processes.

    Parameters
    ----------
    network : a `DenoisingUnet`, a `ResidualUnet` or an `NCSNv2`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clean: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Loss to minimise and loss to report; `clean` and `noise` (batch, 2, y, x)."""
        if isinstance(self.network, DenoisingUnet):
            return denoising_loss(self.network, clean, sigma, noise)
        if isinstance(self.network, NCSNv2):
            return annealed_loss(self.network, clean, sigma, noise)
        loss = score_loss(self.network, clean, sigma, noise)
        return loss, loss.detach()


def denoising_loss(
    model: DenoisingUnet, clean: Tensor, sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Denoising score matching with EDM weighting, and the likelihood of the error variance.

    The mean is trained by the mean square error alone: a Gaussian likelihood on both would
    spend the network on pixels that are easy.

    Parameters
    ----------
    clean : (batch, 2, y, x).
    sigma : (batch,).
    noise : (batch, 2, y, x), of sd 1.

    Returns
    -------
    loss to minimise, and its mean-square part (1 = no better than the preconditioning alone).
    """
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    skip, out, _ = model.preconditioning(sigma)
    target = (clean - skip * noisy) / out
    with torch.autocast(clean.device.type, torch.bfloat16):
        residual, log_variance = model.residual(
            noisy.contiguous(memory_format=torch.channels_last), sigma
        )
    error = (residual.float() - target).square()
    mse = error.mean()
    likelihood = (log_variance + error.detach().mean(1, keepdim=True) / log_variance.exp()).mean()
    return mse + 0.02 * likelihood, mse.detach()


def annealed_loss(
    model: NCSNv2, clean: Tensor, sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Denoising score matching at the network's levels (Song and Ermon 2019, Eqs. 5 and 6):

        1/2 sigma^2 || s(x + sigma e, sigma) + e / sigma ||^2 = 1/2 || f(x + sigma e) + e ||^2

    summed over pixels and components, mean over the batch.  The weight sigma^2 makes the terms of
    all levels alike.

    Parameters
    ----------
    clean : (batch, 2, y, x).
    sigma : (batch,).
    noise : (batch, 2, y, x), of sd 1.

    Returns
    -------
    loss to minimise, and the mean of the square (1 = no better than f = 0).
    """
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    with torch.autocast(clean.device.type, torch.bfloat16):
        found = model.unscaled(noisy.contiguous(memory_format=torch.channels_last))
    error = (found.float() + noise).square()
    return error.sum() / (2 * len(clean)), error.mean().detach()


def geometric_levels(sigmas: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,) of a network that knows `sigmas`, stratified over the batch."""
    place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return sigmas.cpu()[(place * len(sigmas)).long().clamp(max=len(sigmas) - 1)]


def log_normal_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,), stratified over the batch for a steadier loss."""
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.999, 0.999))
    return (math.log(0.15) + 1.4 * normal).exp().clamp(*SIGMA_RANGE)
