"""The U-Nets of EDM (Karras et al. 2022, arXiv 2206.00364), for weights of its public code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoremri_core.priors.model import ModelPrior


class EdmUnet(nn.Module):
    """E[x0 | x] of a "DDPM++" U-Net with the preconditioning of EDM (Eq. 7).

        D = c_skip x + c_out F(c_in x, log(sigma) / 4)

    Parameters have the names and shapes of EDM's checkpoints (`SongUNet` inside `EDMPrecond`, with
    positional embedding and the standard encoder and decoder), which load by name. Labels and
    augmentation are left out.

    Parameters
    ----------
    resolution : int
        Resolution in the names of the layers; images may have any size.
    width : int
        Channels at full resolution.
    multipliers : sequence of int
        Of the width at each scale; each further one halves the resolution.
    blocks : int
        Residual blocks per scale.
    attention : sequence of int, optional
        Resolutions with self-attention.
    channels : int, optional
        Of the image; 2 for the real and imaginary parts.
    sigma_data : float, optional
        Sd of each component of the training images.
    """

    def __init__(
        self,
        resolution: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int] = (),
        channels: int = 2,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "attention": list(attention),
            "channels": channels,
            "sigma_data": sigma_data,
        }
        self.multiple = 2 ** (len(multipliers) - 1)
        self.sigma_data = sigma_data
        self.model = _Unet(resolution, width, multipliers, blocks, attention, channels)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise (batch, channels, y, x), y and x multiples of `multiple`, of noise (batch,)."""
        level = sigma.view(-1, 1, 1, 1)
        total = (level**2 + self.sigma_data**2).sqrt()
        raw: Tensor = self.model(x / total, sigma.log() / 4)
        return self.sigma_data**2 / total**2 * x + level * self.sigma_data / total * raw


class EdmPrior(ModelPrior):
    """Prior of an `EdmUnet` in single precision, without an error variance.

    Parameters
    ----------
    model : EdmUnet
        In evaluation mode, with two channels.
    card : dict
        See `ModelPrior`.
    chunk : int, optional
        See `ModelPrior`.
    """

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], complex (batch, y, x)."""
        parts = [self._denoise(part, level) for part, level in self.passes(x, sigma)]
        return torch.cat(parts)[: len(x)].to(x.dtype)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        ny, nx = x.shape[-2:]
        pad_y, pad_x = (-n % self.model.multiple for n in (ny, nx))
        planes = torch.view_as_real(x.to(torch.complex64)).permute(0, 3, 1, 2)
        planes = F.pad(planes, (0, pad_x, 0, pad_y), mode="replicate")
        denoised = self.model(planes, sigma.float())[..., :ny, :nx].permute(0, 2, 3, 1)
        return torch.view_as_complex(denoised.contiguous())


class _Unet(nn.Module):
    def __init__(
        self,
        resolution: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        channels: int,
    ) -> None:
        super().__init__()
        self.width = width
        features = 4 * width
        self.map_layer0 = nn.Linear(width, features)
        self.map_layer1 = nn.Linear(features, features)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        kept = [width]
        now = width
        for i, multiplier in enumerate(multipliers):
            size = resolution >> i
            if i == 0:
                self.enc[f"{size}x{size}_conv"] = _Conv(channels, width)
            else:
                self.enc[f"{size}x{size}_down"] = _Block(now, now, features, down=True)
                kept.append(now)
            for number in range(blocks):
                wide = multiplier * width
                attending = size in attention
                block = _Block(now, wide, features, attention=attending)
                self.enc[f"{size}x{size}_block{number}"] = block
                now = wide
                kept.append(now)
        for i, multiplier in reversed(list(enumerate(multipliers))):
            size = resolution >> i
            if i + 1 == len(multipliers):
                self.dec[f"{size}x{size}_in0"] = _Block(now, now, features, attention=True)
                self.dec[f"{size}x{size}_in1"] = _Block(now, now, features)
            else:
                self.dec[f"{size}x{size}_up"] = _Block(now, now, features, up=True)
            for number in range(blocks + 1):
                wide = multiplier * width
                attending = number == blocks and size in attention
                block = _Block(now + kept.pop(), wide, features, attention=attending)
                self.dec[f"{size}x{size}_block{number}"] = block
                now = wide
        self.dec[f"{resolution}x{resolution}_aux_norm"] = _norm(now)
        self.dec[f"{resolution}x{resolution}_aux_conv"] = _Conv(now, channels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        half = self.width // 2
        frequencies = (
            torch.arange(half, device=x.device, dtype=x.dtype) * (-math.log(10000) / (half - 1))
        ).exp()
        angles = level[:, None] * frequencies
        # sines first, as in the checkpoints
        embedding = torch.cat((angles.sin(), angles.cos()), 1)
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))
        kept: list[Tensor] = []
        for block in self.enc.values():
            x = block(x, embedding) if isinstance(block, _Block) else block(x)
            kept.append(x)
        for name, block in self.dec.items():
            if not isinstance(block, _Block):
                x = F.silu(block(x)) if name.endswith("norm") else block(x)
                continue
            if "_block" in name:
                x = torch.cat((x, kept.pop()), 1)
            x = block(x, embedding)
        return x


class _Conv(nn.Module):
    """3 x 3 or 1 x 1 convolution, followed by downsampling or preceded by upsampling."""

    def __init__(self, before: int, after: int, kernel: int = 3, scaling: str = "") -> None:
        super().__init__()
        self.scaling = scaling
        self.weight = nn.Parameter(torch.empty(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.scaling == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.scaling == "down":
            x = F.avg_pool2d(x, 2)
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class _Block(nn.Module):
    """Residual block, modulated by the noise level, optionally followed by self-attention."""

    def __init__(
        self,
        before: int,
        after: int,
        features: int,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        scaling = "up" if up else "down" if down else ""
        self.after = after
        self.norm0 = _norm(before)
        self.conv0 = _Conv(before, after, 3, scaling)
        self.affine = nn.Linear(features, after)
        self.norm1 = _norm(after)
        self.conv1 = _Conv(after, after)
        self.skip = None
        if before != after or scaling:
            self.skip = _Conv(before, after, 1, scaling)
        self.attention = attention
        if attention:
            self.norm2 = _norm(after)
            self.qkv = _Conv(after, 3 * after, 1)
            self.proj = _Conv(after, after, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(self.norm1(h + self.affine(embedding)[:, :, None, None]))
        h = self.conv1(h)
        x = (h + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
        if self.attention:
            x = (x + self.proj(self.attended(x))) * math.sqrt(0.5)
        return x

    def attended(self, x: Tensor) -> Tensor:
        """Self-attention over pixels, in the shape of x."""
        batch, width, ny, nx = x.shape
        # query, key and value of a feature are neighbouring channels
        qkv = self.qkv(self.norm2(x)).reshape(batch, width, 3, ny * nx)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width // 4), width, eps=1e-6)
