"""Hamiltonian dynamics of a density that is known by its score alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Simpson's rule through 4 points, of which the ends are known already
INTERIOR = (1 / 3, 2 / 3)
END_WEIGHT, INTERIOR_WEIGHT = 1 / 8, 3 / 8


def leapfrog(
    gradients: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    step: Tensor,
    count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Follow Hamilton's equations for unit mass (Neal 2011, Eq. 2.28 to 2.30).

    Parameters
    ----------
    gradients : x to the prior's part of the gradient of log p, and the whole of it.
    x, momentum : where the trajectory starts.
    gradient : of log p at x.
    step, count : size, broadcast to x, and number of the steps.

    Returns
    -------
    x and the momentum at the end, and both gradients there.
    """
    score = gradient
    for _ in range(count):
        momentum = momentum + step / 2 * gradient
        x = x + step * momentum
        score, gradient = gradients(x)
        momentum = momentum + step / 2 * gradient
    return x, momentum, score, gradient


def path_integral(
    score: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    at_start: Tensor,
    at_end: Tensor,
) -> Tensor:
    """Tell log p(end) - log p(start) from the score, by Simpson's rule through 4 points.

    Exact where the score is a polynomial of third degree along the segment; two evaluations.

    Parameters
    ----------
    start, end : (frame, sample, set, y, x).
    at_start, at_end : the score there.

    Returns
    -------
    (frame, sample), double precision.
    """
    way = end - start
    interior = [inner(way, score(start + t * way)) for t in INTERIOR]
    return END_WEIGHT * inner(way, at_start + at_end) + INTERIOR_WEIGHT * sum(interior)


def inner(p: Tensor, q: Tensor) -> Tensor:
    """Real inner product of images (frame, sample, set, y, x): (frame, sample)."""
    product = torch.view_as_real(p) * torch.view_as_real(q)
    # in double precision: log p is a small difference of large sums
    return product.sum((-4, -3, -2, -1), dtype=torch.float64)
