"""NCSNv2 as a prior: a denoiser at any noise level from its score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.ncsnv2 import NCSNv2


class NCSNv2Prior(ModelPrior):
    """Denoiser from the score s of an NCSNv2, by Tweedie's formula.

        D(x, sigma) = x + sigma^2 s(x, sigma),    s(x, sigma) = f(x) / max(sigma, sigma_L)

    The network is trained at levels sigma_1 > ... > sigma_L, which enter by division only. Dividing
    by sigma itself interpolates the score between the levels and equals the original's at each of
    them. Below sigma_L, less noise than in training, the score of the last level is kept.

    The real and imaginary parts are the two channels, and sigma is the sd of each. Computes in
    float32, without an error variance.

    Parameters
    ----------
    model : NCSNv2
        In evaluation mode, with two channels.
    card : dict
        See `ModelPrior`.
    chunk : int, optional
        See `ModelPrior`.

    Raises
    ------
    InputError
        The network does not have two channels.
    """

    def __init__(self, model: NCSNv2, card: dict[str, Any], chunk: int = 4) -> None:
        super().__init__(model, card, chunk)
        if model.config["channels"] != 2:
            raise InputError(
                f"prior {self.name}: images have {model.config['channels']} channels: expected 2, "
                "the real and imaginary part"
            )
        self.model: NCSNv2

    @property
    def sigmas(self) -> Tensor:
        """Noise levels of the training, decreasing."""
        return self.model.sigmas

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], complex (batch, y, x)."""
        last = self.sigmas.min()
        parts = []
        for part, level in self.passes(x, sigma):
            planes = torch.view_as_real(part.to(torch.complex64)).permute(0, 3, 1, 2)
            step = level.float() ** 2 / level.float().clamp(min=last)
            denoised = planes + step.view(-1, 1, 1, 1) * self.model.unscaled(planes)
            parts.append(torch.view_as_complex(denoised.permute(0, 2, 3, 1).contiguous()))
        return torch.cat(parts)[: len(x)].to(x.dtype)
