"""Denoising score matching with signed noise levels (Ramzi et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def signed_levels(count: int, sd: float, generator: torch.Generator) -> Tensor:
    """Noise levels from N(0, sd^2), negative ones included: (count,).

    The network thereby learns on both sides of sigma = 0, and interpolates there instead of
    extrapolating (Lim et al. 2020, AR-DAE).
    """
    levels = sd * torch.randn(count, generator=generator)
    # the output is divided by |sigma|
    return torch.where(levels < 0, levels.clamp(max=-1e-3 * sd), levels.clamp(min=1e-3 * sd))


def score_loss(model: nn.Module, clean: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
    """E || u + sigma r(x + sigma u, sigma) ||^2 for each real component.

    Its minimum is the score of the images blurred by sigma; 1 is no better than r = 0.

    Parameters
    ----------
    clean : x, (batch, 2, y, x).
    sigma : (batch,) noise levels of either sign.
    u : noise of sd 1, like `clean`.
    """
    scale = sigma.view(-1, 1, 1, 1)
    return (u + scale * model(clean + scale * u, sigma)).square().mean()
