"""Losses of denoising score matching, and the noise levels of training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.precision import mixed_precision
from scoremri_core.priors.unet import DenoisingUnet

SIGMA_RANGE = (0.003, 6.0)


class Objective(nn.Module):
    """The loss as a module that can be compiled and distributed.

    Parameters
    ----------
    network : DenoisingUnet, ResidualUnet or NCSNv2
    teacher : DenoisingUnet, optional
        Its mean replaces the clean image as the target, see `denoising_loss` and `expected_noise`.
    """

    def __init__(self, network: nn.Module, teacher: DenoisingUnet | None = None) -> None:
        super().__init__()
        self.network = network
        self.teacher = teacher

    def forward(
        self, clean: Tensor, sigma: Tensor, noise: Tensor, no_teacher: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise and the loss to report.

        Parameters
        ----------
        clean, noise : float tensor, (batch, 2, y, x)
        sigma : float tensor, (batch,)
        no_teacher : bool tensor, (batch,)
            Images whose target is the clean image.
        """
        if isinstance(self.network, DenoisingUnet):
            return denoising_loss(self.network, clean, sigma, noise, self.teacher, no_teacher)
        expected = None
        if self.teacher is not None:
            noisy = clean + sigma.view(-1, 1, 1, 1) * noise
            expected = expected_noise(self.teacher, noisy, sigma, noise)
            expected = torch.where(no_teacher.view(-1, 1, 1, 1), noise, expected)
        if isinstance(self.network, NCSNv2):
            return annealed_loss(self.network, clean, sigma, noise, expected)
        return signed_loss(self.network, clean, sigma, noise, expected)


def denoising_loss(
    model: DenoisingUnet,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    teacher: DenoisingUnet | None = None,
    no_teacher: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoising score matching with EDM weighting, and the likelihood of the error variance.

    The mean is trained by the mean square error only: a Gaussian likelihood of both would favour
    easy pixels.

    Parameters
    ----------
    model : DenoisingUnet
    clean : float tensor, (batch, 2, y, x)
    sigma : float tensor, (batch,)
    noise : float tensor, (batch, 2, y, x)
        Sd 1.
    teacher : DenoisingUnet, optional
        Its mean replaces the clean image as the target of the mean (distillation [1]_). The
        deviation of the clean image from its expectation is noise in training, so that a smaller
        network converges in fewer steps. The error variance is learned from the clean image.
    no_teacher : bool tensor, (batch,), optional
        Images whose target is the clean image; None for none.

    Returns
    -------
    loss : float tensor
        To minimise.
    error : float tensor
        Mean square error against the clean image; 1 is that of the preconditioning without a
        network.

    References
    ----------
    .. [1] Hinton G et al. Distilling the knowledge in a neural network. arXiv:1503.02531 (2015).
    """
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    skip, out, _ = model.preconditioning(sigma)
    target = (clean - skip * noisy) / out
    seen = noisy.contiguous(memory_format=torch.channels_last)
    with mixed_precision(clean.device):
        residual, log_variance = model.residual(seen, sigma)
        lesson = target if teacher is None else _lesson(teacher, seen, sigma, target, no_teacher)
    residual = residual.float()
    error = (residual - target).square()
    likelihood = (log_variance + error.detach().mean(1, keepdim=True) / log_variance.exp()).mean()
    return (residual - lesson).square().mean() + 0.02 * likelihood, error.mean().detach()


@torch.no_grad()
def _lesson(
    teacher: DenoisingUnet,
    seen: Tensor,
    sigma: Tensor,
    target: Tensor,
    no_teacher: Tensor | None,
) -> Tensor:
    """Return the teacher's residual, or the target of images without a teacher."""
    taught = teacher.residual(seen, sigma)[0].float()
    return (
        taught if no_teacher is None else torch.where(no_teacher.view(-1, 1, 1, 1), target, taught)
    )


def annealed_loss(
    model: NCSNv2,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    expected: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoising score matching at the network's levels (Song and Ermon 2019, Eqs. 5 and 6).

        1/2 sigma^2 || s(x + sigma e, sigma) + e / sigma ||^2 = 1/2 || f(x + sigma e) + e ||^2

    summed over pixels and components, mean over the batch. The weight sigma^2 balances the levels.

    Parameters
    ----------
    model : NCSNv2
    clean : float tensor, (batch, 2, y, x)
    sigma : float tensor, (batch,)
    noise : float tensor, (batch, 2, y, x)
        Sd 1.
    expected : float tensor, (batch, 2, y, x), optional
        Replaces the noise as the target, see `expected_noise`.

    Returns
    -------
    loss : float tensor
        To minimise.
    error : float tensor
        Mean of the square; 1 is that of f = 0.
    """
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    with mixed_precision(clean.device):
        found = model.unscaled(noisy.contiguous(memory_format=torch.channels_last))
    mse = (found.float() + noise).square().mean()
    learned = mse if expected is None else (found.float() + expected).square().mean()
    return learned * clean[0].numel() / 2, mse.detach()


def signed_loss(
    model: nn.Module,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    expected: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return E || e + sigma r(x + sigma e, sigma) ||^2 per real component (Ramzi et al. 2020).

    Its minimiser is the score of the images with noise of sd sigma.

    Parameters
    ----------
    model : ResidualUnet
    clean : float tensor, (batch, 2, y, x)
    sigma : float tensor, (batch,)
        Noise levels of either sign.
    noise : float tensor, (batch, 2, y, x)
        Sd 1.
    expected : float tensor, (batch, 2, y, x), optional
        Replaces the noise as the target, see `expected_noise`.

    Returns
    -------
    loss : float tensor
        To minimise.
    error : float tensor
        Mean of the square; 1 is that of r = 0.
    """
    scale = sigma.view(-1, 1, 1, 1)
    noisy = clean + scale * noise
    with mixed_precision(clean.device):
        score = model(noisy.contiguous(memory_format=torch.channels_last), sigma)
    found = scale * score.float()
    mse = (found + noise).square().mean()
    learned = mse if expected is None else (found + expected).square().mean()
    return learned, mse.detach()


@torch.no_grad()
def expected_noise(teacher: DenoisingUnet, noisy: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Return E[noise | noisy] = (noisy - E[clean | noisy]) / sigma of a teacher.

    As the target of a score network it has the same minimiser as the noise, if the teacher is
    exact, and a gradient of less variance.

    Parameters
    ----------
    teacher : DenoisingUnet
    noisy : float tensor, (batch, 2, y, x)
        clean + sigma * noise.
    sigma : float tensor, (batch,)
        Of either sign. Outside of `SIGMA_RANGE`, that of the teachers' training, the noise is
        returned.
    noise : float tensor, (batch, 2, y, x)
        Sd 1.

    Returns
    -------
    float tensor, (batch, 2, y, x)
    """
    least, greatest = SIGMA_RANGE
    level = sigma.abs().clamp(least, greatest)
    with mixed_precision(noisy.device):
        residual = teacher.residual(noisy.contiguous(memory_format=torch.channels_last), level)[0]
    # (noisy - skip noisy - out residual) / level, without cancellation
    total = (level**2 + teacher.sigma_data**2).view(-1, 1, 1, 1)
    level = level.view(-1, 1, 1, 1)
    expected = level / total * noisy - teacher.sigma_data / total.sqrt() * residual.float()
    known = (sigma.abs() >= least) & (sigma.abs() <= greatest)
    return torch.where(known.view(-1, 1, 1, 1), sigma.sign().view(-1, 1, 1, 1) * expected, noise)


def geometric_levels(sigmas: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels (count,) from `sigmas`, stratified over the batch."""
    place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return sigmas.cpu()[(place * len(sigmas)).long().clamp(max=len(sigmas) - 1)]


def log_normal_levels(count: int, generator: torch.Generator) -> Tensor:
    """Draw log-normal noise levels (count,), stratified over the batch for a steadier loss."""
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.999, 0.999))
    return (math.log(0.15) + 1.4 * normal).exp().clamp(*SIGMA_RANGE)


def signed_levels(count: int, sd: float, generator: torch.Generator) -> Tensor:
    """Draw noise levels (count,) from N(0, sd^2), including negative ones.

    The network is trained on both sides of sigma = 0 and interpolates there (Lim et al. 2020,
    AR-DAE).
    """
    levels = sd * torch.randn(count, generator=generator)
    # the output is divided by |sigma|
    return torch.where(levels < 0, levels.clamp(max=-1e-3 * sd), levels.clamp(min=1e-3 * sd))
