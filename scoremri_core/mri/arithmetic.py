"""Fast products of complex tensors with real factors, and memory layout."""

from __future__ import annotations

import torch
from torch import Tensor


def y_contiguous(x: Tensor) -> Tensor:
    """Copy a tensor (..., y, x) to be contiguous along y, so that FFTs along y need no copy."""
    return x.mT.contiguous().mT


def real_pairs(factors: Tensor) -> Tensor:
    """Repeat real factors (..., y, x) for real and imaginary parts, (..., y, x, 2)."""
    pairs = factors.mT[..., None].expand(*factors.mT.shape, 2)
    return pairs.contiguous().transpose(-2, -3)


def scale_complex(x: Tensor, factors: Tensor) -> Tensor:
    """Multiply a complex tensor (..., y, x) by `real_pairs` factors, twice as fast as torch."""
    return torch.view_as_complex(torch.view_as_real(x) * factors)


def scale_complex_(x: Tensor, factors: Tensor) -> Tensor:
    """`scale_complex` in place."""
    torch.view_as_real(x).mul_(factors)
    return x
