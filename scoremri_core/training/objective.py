"""Denoising score matching: what is minimised."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.precision import mixed_precision
from scoremri_core.priors.unet import DenoisingUnet

SIGMA_RANGE = (0.003, 6.0)


class Objective(nn.Module):
    """The loss as one module, whose forward pass can be compiled and shared among processes.

    Parameters
    ----------
    network : a `DenoisingUnet`, a `ResidualUnet` or an `NCSNv2`.
    teacher : a `DenoisingUnet` whose mean is learned instead of the clean image, see
        `denoising_loss` and `expected_noise`.
    """

    def __init__(self, network: nn.Module, teacher: DenoisingUnet | None = None) -> None:
        super().__init__()
        self.network = network
        self.teacher = teacher

    def forward(
        self, clean: Tensor, sigma: Tensor, noise: Tensor, no_teacher: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss to minimise and loss to report.

        Parameters
        ----------
        clean, noise : (batch, 2, y, x).
        sigma : (batch,).
        no_teacher : (batch,) bool, images that are learned from themselves, teacher or not.
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

    The mean is trained by the mean square error alone: a Gaussian likelihood on both would
    spend the network on pixels that are easy.

    Parameters
    ----------
    clean : (batch, 2, y, x).
    sigma : (batch,).
    noise : (batch, 2, y, x), of sd 1.
    teacher : a network whose mean is learned instead of the clean image.  What the clean image has
        beyond its expectation is noise to whoever learns (distillation, Hinton et al. 2015), so
        that a smaller network gets there in fewer steps.  The error variance is the network's own.
    no_teacher : (batch,) bool, which images the teacher has no say in; None for none.

    Returns
    -------
    loss to minimise, and the mean square error against the clean image (1 = no better than the
    preconditioning alone).
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
    """What a teacher says, but the target itself of images that it has no say in."""
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
    """Denoising score matching at the network's levels (Song and Ermon 2019, Eqs. 5 and 6):

        1/2 sigma^2 || s(x + sigma e, sigma) + e / sigma ||^2 = 1/2 || f(x + sigma e) + e ||^2

    summed over pixels and components, mean over the batch.  The weight sigma^2 makes the terms of
    all levels alike.

    Parameters
    ----------
    clean : (batch, 2, y, x).
    sigma : (batch,).
    noise : (batch, 2, y, x), of sd 1.
    expected : what is learned instead of the noise, see `expected_noise`.

    Returns
    -------
    loss to minimise, and the mean of the square (1 = no better than f = 0).
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
    """E || e + sigma r(x + sigma e, sigma) ||^2 for each real component (Ramzi et al. 2020).

    Its minimum is the score of the images blurred by sigma.

    Parameters
    ----------
    clean : x, (batch, 2, y, x).
    sigma : (batch,) noise levels of either sign.
    noise : (batch, 2, y, x), of sd 1.
    expected : what is learned instead of the noise, see `expected_noise`.

    Returns
    -------
    loss to minimise, and the mean of the square (1 = no better than r = 0).
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
    """E[noise | noisy] = (noisy - E[clean | noisy]) / sigma by a teacher, (batch, 2, y, x).

    A score network that learns it instead of the noise has the same minimum if the teacher is
    right, and a gradient of less variance (distillation, Hinton et al. 2015).

    Parameters
    ----------
    noisy : clean + sigma * noise, (batch, 2, y, x).
    sigma : (batch,) of either sign; where it lies outside of `SIGMA_RANGE`, in which teachers
        were trained, the noise itself is returned.
    noise : (batch, 2, y, x), of sd 1.
    """
    least, greatest = SIGMA_RANGE
    level = sigma.abs().clamp(least, greatest)
    with mixed_precision(noisy.device):
        residual = teacher.residual(noisy.contiguous(memory_format=torch.channels_last), level)[0]
    # (noisy - skip noisy - out residual) / level, without the difference of nearly equal numbers
    total = (level**2 + teacher.sigma_data**2).view(-1, 1, 1, 1)
    level = level.view(-1, 1, 1, 1)
    expected = level / total * noisy - teacher.sigma_data / total.sqrt() * residual.float()
    known = (sigma.abs() >= least) & (sigma.abs() <= greatest)
    return torch.where(known.view(-1, 1, 1, 1), sigma.sign().view(-1, 1, 1, 1) * expected, noise)


def geometric_levels(sigmas: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,) of a network that knows `sigmas`, stratified over the batch."""
    place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return sigmas.cpu()[(place * len(sigmas)).long().clamp(max=len(sigmas) - 1)]


def log_normal_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,), stratified over the batch for a steadier loss."""
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.999, 0.999))
    return (math.log(0.15) + 1.4 * normal).exp().clamp(*SIGMA_RANGE)


def signed_levels(count: int, sd: float, generator: torch.Generator) -> Tensor:
    """Noise levels from N(0, sd^2), negative ones included: (count,).

    The network thereby learns on both sides of sigma = 0, and interpolates there instead of
    extrapolating (Lim et al. 2020, AR-DAE).
    """
    levels = sd * torch.randn(count, generator=generator)
    # the output is divided by |sigma|
    return torch.where(levels < 0, levels.clamp(max=-1e-3 * sd), levels.clamp(min=1e-3 * sd))
