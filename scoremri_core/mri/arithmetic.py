"""Complex arrays by real factors, and the order in memory in which both are quick."""

from __future__ import annotations

import torch
from torch import Tensor


def y_contiguous(x: Tensor) -> Tensor:
    """The same values (..., y, x), neighbours along y next to each other in memory.

    What is transformed along y alone then needs no copy, and what is computed from it has the
    same order.
    """
    return x.mT.contiguous().mT


def real_pairs(factors: Tensor) -> Tensor:
    """Repeat real factors (..., y, x) for both components, (..., y, x, 2)."""
    pairs = factors.mT[..., None].expand(*factors.mT.shape, 2)
    return pairs.contiguous().transpose(-2, -3)


def scale_complex(x: Tensor, factors: Tensor) -> Tensor:
    """Complex (..., y, x) times `real_pairs` real factors.

    As real numbers: torch would make complex ones of the factors first, at twice the time.
    """
    return torch.view_as_complex(torch.view_as_real(x) * factors)


def scale_complex_(x: Tensor, factors: Tensor) -> Tensor:
    """`scale_complex` in place."""
    torch.view_as_real(x).mul_(factors)
    return x
