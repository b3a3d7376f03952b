"""MoDL: a denoising network and data consistency by turns.

Aggarwal, Mani & Jacob, "MoDL: Model-based deep learning architecture for inverse problems", IEEE
TMI 38:394-405 (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoremri_core.mri.sense import SenseOperator
from scoremri_core.studies.methods.blocks import as_channels, as_complex


class Modl(nn.Module):
    """x <- argmin |A x - y|^2 + lambda |x - z|^2 with z = D(x), K times from A^H y (Eqs. 8, 9).

    D is one residual network for all turns, and lambda is learned with it.

    Parameters
    ----------
    width : channels of the network.
    turns : K.
    layers : convolutions of the network.
    iterations : of the conjugate gradients, through which gradients are propagated.
    """

    def __init__(self, width: int = 32, turns: int = 5, layers: int = 5, iterations: int = 6):
        super().__init__()
        self.turns, self.iterations = turns, iterations
        parts: list[nn.Module] = []
        for i in range(layers - 1):
            parts += [
                nn.Conv2d(width if i else 2, width, 3, padding=1),
                nn.GroupNorm(1, width),  # batch normalisation there, whose batch here is one image
                nn.ReLU(),
            ]
        self.network = nn.Sequential(*parts, nn.Conv2d(width, 2, 3, padding=1))
        self.log_lambda = nn.Parameter(torch.tensor(-3.0))

    def forward(self, kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
        """Image (batch, y, x) of k-space and maps (batch, coil, y, x) and mask (batch, y, x)."""
        operator = SenseOperator(maps[:, None], mask)
        start = operator.adjoint(kspace[:, None])  # (batch, 1, 1, y, x)
        weight = self.log_lambda.exp()
        x = start
        for _ in range(self.turns):
            flat = x[:, 0, 0]
            z = flat + as_complex(self.network(as_channels(flat)))
            x = self._solve(operator, start + weight * z[:, None, None], x, weight)
        return x[:, 0, 0]

    def _solve(self, operator: SenseOperator, target: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """(A^H A + lambda) x = target by conjugate gradients from x."""

        def dot(a: Tensor, b: Tensor) -> Tensor:
            return (a.conj() * b).real.sum((-2, -1), keepdim=True)

        left = target - operator.normal(x) - weight * x
        direction, power = left, dot(left, left)
        for _ in range(self.iterations):
            through = operator.normal(direction) + weight * direction
            step = power / (dot(direction, through) + 1e-12)
            x = x + step * direction
            left = left - step * through
            before, power = power, dot(left, left)
            direction = left + power / (before + 1e-12) * direction
        return x
