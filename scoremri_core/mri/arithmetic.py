"""Complex arrays by real factors, and the order in memory in which both are quick."""

from __future__ import annotations

import torch
from torch import Tensor


def along_y(x: Tensor) -> Tensor:
    """The same values (..., y, x), neighbours along y next to each other in memory.

    What is transformed along y alone then needs no copy, and what is computed from it has the
    same order.
    """
    return x.mT.contiguous().mT


def doubled(factors: Tensor) -> Tensor:
    """Real factors (..., y, x) as `weigh` takes them, (..., y, x, 2): for both components."""
    pairs = factors.mT[..., None].expand(*factors.mT.shape, 2)
    return pairs.contiguous().transpose(-2, -3)


def weigh(x: Tensor, factors: Tensor) -> Tensor:
    """Complex (..., y, x) times `doubled` real factors.

    As real numbers: torch would make complex ones of the factors first, at twice the time.
    """
    return torch.view_as_complex(torch.view_as_real(x) * factors)


def weigh_(x: Tensor, factors: Tensor) -> Tensor:
    """`weigh` in place."""
    torch.view_as_real(x).mul_(factors)
    return x
