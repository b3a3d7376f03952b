"""Small networks that several baselines are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallUnet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with residual output left to the caller.

    Parameters
    ----------
    inputs, outputs : channels.
    width : channels of the finest scale, doubled at each coarser one.
    scales : how many.
    """

    def __init__(self, inputs: int, outputs: int, width: int, scales: int = 3) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(scales)]
        self.multiple = 2 ** (scales - 1)
        self.down = nn.ModuleList(
            double_conv(before, after)
            for before, after in zip([inputs, *widths], widths, strict=False)
        )
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.up = nn.ModuleList(double_conv(2 * w, w) for w in widths[-2::-1])
        self.tail = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, y, x) to (batch, outputs, y, x), of any size."""
        ny, nx = x.shape[-2:]
        h = F.pad(x, (0, -nx % self.multiple, 0, -ny % self.multiple))
        kept = []
        for i, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if i else h)
            kept.append(h)
        kept.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            h = block(torch.cat((grow(h), kept.pop()), 1))
        out: Tensor = self.tail(h)
        return out[..., :ny, :nx]


def double_conv(before: int, after: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with instance normalisation and a leaky ReLU."""
    layers: list[nn.Module] = []
    for first in (before, after):
        layers += [
            nn.Conv2d(first, after, 3, padding=1),
            nn.InstanceNorm2d(after, affine=True),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers)


def as_channels(x: Tensor) -> Tensor:
    """Complex (batch, y, x) to real and imaginary parts (batch, 2, y, x)."""
    return torch.view_as_real(x).permute(0, 3, 1, 2)


def as_complex(x: Tensor) -> Tensor:
    """The inverse of `as_channels`."""
    return torch.view_as_complex(x.permute(0, 2, 3, 1).contiguous())
