"""A noise-conditional U-Net that returns the denoised image and its error variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenoisingUnet(nn.Module):
    """E[x0 | x] and its per-pixel error variance, for x = x0 + sigma e.

    The network runs at half resolution on 2 x 2 pixel blocks, for a large receptive field at low
    cost, and does not normalise over space, so that a pixel does not depend on the size of the
    image. Preconditioning after Karras et al. 2022 (EDM, Eq. 7):

        D = c_skip x + c_out F(c_in x, sigma),    v = c_out^2 exp(h)

    where the outputs F and h of the network are of order one at every sigma.

    Parameters
    ----------
    channels : sequence of int, optional
        Width at each scale; each further scale halves the resolution.
    blocks : sequence of int, optional
        Residual blocks per scale, in encoder and decoder.
    embedding : int, optional
        Width of the noise-level embedding.
    sigma_data : float, optional
        Sd of each real component of the training images.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 192, 192),
        blocks: Sequence[int] = (2, 2, 2, 1),
        embedding: int = 128,
        sigma_data: float = 0.3,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": list(channels),
            "blocks": list(blocks),
            "embedding": embedding,
            "sigma_data": sigma_data,
        }
        self.multiple = 2 ** len(channels)
        self.sigma_data = sigma_data
        self.embed = NoiseEmbedding(embedding)
        self.head = nn.Conv2d(8, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.grow = nn.ModuleList()
        for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            self.down.append(Stage(Block(width, embedding) for _ in range(count)))
            self.up.append(Stage(Block(width, embedding) for _ in range(count)))
            if i + 1 < len(channels):
                self.shrink.append(nn.Conv2d(width, channels[i + 1], 2, stride=2))
                self.grow.append(nn.ConvTranspose2d(channels[i + 1], width, 2, stride=2))
        self.tail = nn.Conv2d(channels[0], 12, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Denoise.

        Parameters
        ----------
        x : float tensor, (batch, 2, y, x)
            Real and imaginary parts; y and x multiples of `self.multiple`.
        sigma : float tensor, (batch,)
            Sd of the noise in each component.

        Returns
        -------
        denoised : float tensor, (batch, 2, y, x)
        variance : float tensor, (batch, 1, y, x)
            Of the error of each component.
        """
        residual, log_variance = self.residual(x, sigma)
        skip, out, _ = self.preconditioning(sigma)
        return skip * x + out * residual, out**2 * log_variance.exp()

    def residual(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's outputs in float32.

        Parameters
        ----------
        x : float tensor, (batch, 2, y, x)
        sigma : float tensor, (batch,)

        Returns
        -------
        F : float tensor, (batch, 2, y, x)
        h : float tensor, (batch, 1, y, x)
        """
        embedding = self.embed(sigma)
        blocks = F.pixel_unshuffle(self.preconditioning(sigma)[2] * x, 2)
        h = self.head(blocks.to(self.head.weight.dtype))
        skips = []
        for i, stage in enumerate(self.down):
            h = stage(h, embedding)
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.up))):
            if i < len(self.grow):
                h = self.grow[i](h) + skips.pop()
            h = self.up[i](h, embedding)
        h = F.pixel_shuffle(self.tail(h).float(), 2)
        return h[:, :2], h[:, 2:].clamp(-12, 4)

    def preconditioning(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the factors of Karras et al. 2022.

        Parameters
        ----------
        sigma : float tensor, (batch,)

        Returns
        -------
        c_skip : float tensor, (batch, 1, 1, 1)
        c_out : float tensor, (batch, 1, 1, 1)
        c_in : float tensor, (batch, 1, 1, 1)
        """
        sigma = sigma.view(-1, 1, 1, 1)
        total = (sigma**2 + self.sigma_data**2).sqrt()
        return (self.sigma_data / total) ** 2, sigma * self.sigma_data / total, 1 / total


class NoiseEmbedding(nn.Module):
    """Fourier features of log sigma and a two-layer perceptron."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-3, 3, width // 2))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, sigma: Tensor) -> Tensor:
        """(batch,) to (batch, width)."""
        angle = sigma.log()[:, None] * self.frequencies * math.tau / 8
        features = torch.cat((angle.cos(), angle.sin()), 1)
        return F.silu(self.layers(features.to(next(self.parameters()).dtype)))


class Stage(nn.ModuleList):
    """The blocks of one scale, one after another."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Keep the shape (batch, width, y, x)."""
        for block in self:
            x = block(x, embedding)
        return x


class Block(nn.Module):
    """Residual block: normalise over channels, convolve, modulate by the noise level, convolve."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Keep the shape (batch, width, y, x)."""
        # LayerNorm needs channels last, the memory format
        h = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).to(x.dtype)
        h = self.first(h)
        scale, shift = self.modulate(embedding)[:, :, None, None].to(h.dtype).chunk(2, 1)
        return self.second(F.silu(torch.addcmul(shift, h, 1 + scale))).add_(x)
