"""UPDNet: learned primal-dual steps whose primal network is a U-Net.

Adler & Oktem, "Learned primal-dual reconstruction", IEEE TMI 37:1322-1332 (2018), as unrolled for
MRI in Ramzi, Ciuciu & Starck, "Benchmarking MRI reconstruction neural networks on large public
datasets", Applied Sciences 10:1816 (2020), with a U-Net for the images: the supervised network that
Ramzi et al. 2020 compare their samples with.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scoremri_core.mri.sense import SenseOperator
from scoremri_core.studies.methods.blocks import SmallUnet, as_channels, as_complex


class UpdNet(nn.Module):
    """d <- d + G(d, A x, y) coil by coil, then x <- x + U(x, A^H d), N times.

    Parameters
    ----------
    width : int, optional
        Channels of the U-Net's finest scale.
    turns : int, optional
        N, each with separate networks.
    memory : int, optional
        Complex images passed between iterations, x the first of them.
    """

    def __init__(self, width: int = 16, turns: int = 4, memory: int = 2) -> None:
        super().__init__()
        self.memory = memory
        self.dual = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(6, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 2, 3, padding=1),
            )
            for _ in range(turns)
        )
        self.primal = nn.ModuleList(
            SmallUnet(2 * memory + 2, 2 * memory, width) for _ in range(turns)
        )
        last_layers: list[Any] = [list(dual.children())[-1] for dual in self.dual]
        last_layers += [unet.tail for unet in self.primal]
        for last in last_layers:
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(self, kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
        """Map k-space and maps (batch, coil, y, x) and mask (batch, y, x) to (batch, y, x)."""
        operator = SenseOperator(maps[:, None], mask)
        batch, coils, ny, nx = kspace.shape
        measured = mask[:, None]
        start = operator.adjoint(kspace[:, None])[:, 0, 0]
        images = as_channels(start).repeat(1, self.memory, 1, 1)
        dual = kspace.new_zeros(kspace.shape)
        for of_data, of_image in zip(self.dual, self.primal, strict=True):
            image = as_complex(images[:, :2])
            seen = operator.forward(image[:, None, None])[:, 0]
            stacked = torch.cat(
                [as_channels(part.reshape(-1, ny, nx)) for part in (dual, seen, kspace)], 1
            )
            change = as_complex(of_data(stacked)).reshape(batch, coils, ny, nx)
            # at first the dual is the residual of the data, which the network amends
            dual = (seen - kspace + change) * measured
            back = operator.adjoint(dual[:, None])[:, 0, 0]
            images = images + of_image(torch.cat((images, as_channels(back)), 1))
        return as_complex(images[:, :2])
