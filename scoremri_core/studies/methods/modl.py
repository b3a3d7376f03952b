"""MoDL: a denoising network alternating with data consistency.

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

    D is one residual network for all iterations; lambda is learned.

    Parameters
    ----------
    width : int, optional
        Channels of the network.
    turns : int, optional
        K.
    layers : int, optional
        Convolutions of the network.
    iterations : int, optional
        Of the conjugate gradients, through which gradients are propagated.
    """

    def __init__(self, width: int = 32, turns: int = 5, layers: int = 5, iterations: int = 6):
        super().__init__()
        self.turns, self.iterations = turns, iterations
        parts: list[nn.Module] = []
        for i in range(layers - 1):
            parts += [
                nn.Conv2d(width if i else 2, width, 3, padding=1),
                nn.GroupNorm(1, width),  # in place of batch normalisation: a batch is one image
                nn.ReLU(),
            ]
        self.network = nn.Sequential(*parts, nn.Conv2d(width, 2, 3, padding=1))
        self.log_lambda = nn.Parameter(torch.tensor(-3.0))

    def forward(self, kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
        """Map k-space and maps (batch, coil, y, x) and mask (batch, y, x) to (batch, y, x)."""
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
        """Solve (A^H A + lambda) x = target by conjugate gradients from x."""

        def dot(a: Tensor, b: Tensor) -> Tensor:
            return (a.conj() * b).real.sum((-2, -1), keepdim=True)

        r = target - operator.normal(x) - weight * x
        p, rr = r, dot(r, r)
        for _ in range(self.iterations):
            mp = operator.normal(p) + weight * p
            step = rr / (dot(p, mp) + 1e-12)
            x = x + step * p
            r = r - step * mp
            previous, rr = rr, dot(r, r)
            p = r + rr / (previous + 1e-12) * p
        return x
