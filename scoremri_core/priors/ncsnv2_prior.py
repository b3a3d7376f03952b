"""NCSNv2 as a prior: its score, at any noise level, turned into a denoiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.ncsnv2 import NCSNv2


class NCSNv2Prior(ModelPrior):
    """Tweedie's formula on the score s of an NCSNv2:

        D(x, sigma) = x + sigma^2 s(x, sigma),    s(x, sigma) = f(x) / max(sigma, sigma_L)

    The network was trained at levels sigma_1 > ... > sigma_L, but a level enters by division
    alone: the score is interpolated between the levels (not snapped to the nearest) by dividing by
    the very sigma that is asked for, and is the original's where sigma is one of its levels.
    Below the last level the score of that level is kept, as f was never shown less noise.

    Real and imaginary parts are the network's two channels, and both codes' sigma is the sd of
    each of them.  It does not tell its error variance; the weights compute in float32.

    Parameters
    ----------
    model : the network, in evaluation mode, of two channels.
    card : what is known of it; `name` is read here.
    chunk : see `ModelPrior`.
    """

    def __init__(self, model: NCSNv2, card: dict[str, Any], chunk: int = 4) -> None:
        super().__init__(model, card, chunk)
        if model.config["channels"] != 2:
            raise InputError(
                f"prior {self.name}: its images have {model.config['channels']} channels: expected "
                "2, real and imaginary part"
            )
        self.model: NCSNv2

    @property
    def sigmas(self) -> Tensor:
        """The levels the network was trained at, in its own order: from large to small."""
        return self.model.sigmas

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], complex (batch, y, x); `sigma` (batch,)."""
        last = self.sigmas.min()
        parts = []
        for part, level in self.passes(x, sigma):
            planes = torch.view_as_real(part.to(torch.complex64)).permute(0, 3, 1, 2)
            step = level.float() ** 2 / level.float().clamp(min=last)
            denoised = planes + step.view(-1, 1, 1, 1) * self.model.unscaled(planes)
            parts.append(torch.view_as_complex(denoised.permute(0, 2, 3, 1).contiguous()))
        return torch.cat(parts)[: len(x)].to(x.dtype)
