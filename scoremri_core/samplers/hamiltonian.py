"""Hamiltonian dynamics of a density given by its score."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Simpson's 3/8 rule; the scores at the ends are known
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
    """Integrate Hamilton's equations for unit mass (Neal 2011, Eq. 2.28 to 2.30).

    Parameters
    ----------
    gradients : callable
        Maps x to the prior's part of the gradient of log p and to the whole gradient.
    x, momentum : complex tensor
        Start of the trajectory.
    gradient : complex tensor
        Of log p at x.
    step : float tensor
        Step size, broadcast to x.
    count : int
        Number of steps.

    Returns
    -------
    x : complex tensor
        End of the trajectory.
    momentum : complex tensor
    score : complex tensor
        The prior's part of `gradient`.
    gradient : complex tensor

    References
    ----------
    .. [1] Neal RM. MCMC using Hamiltonian dynamics. Handbook of MCMC, ch. 5 (2011).
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
    """Integrate the score from start to end by Simpson's 3/8 rule: log p(end) - log p(start).

    See docs/methods.md, Eq. (26). Exact if the score is a cubic polynomial along the segment. Takes
    two evaluations.

    Parameters
    ----------
    score : callable
        Maps x to its score.
    start, end : complex tensor, (frame, sample, set, y, x)
    at_start, at_end : complex tensor, (frame, sample, set, y, x)
        Score at both ends.

    Returns
    -------
    float64 tensor, (frame, sample)
    """
    segment = end - start
    interior = [inner(segment, score(start + t * segment)) for t in INTERIOR]
    return END_WEIGHT * inner(segment, at_start + at_end) + INTERIOR_WEIGHT * sum(interior)


def inner(p: Tensor, q: Tensor) -> Tensor:
    """Return the real inner product of images.

    Parameters
    ----------
    p, q : complex tensor, (frame, sample, set, y, x)

    Returns
    -------
    float64 tensor, (frame, sample)
    """
    product = torch.view_as_real(p) * torch.view_as_real(q)
    # double precision: log p is a small difference of large sums
    return product.sum((-4, -3, -2, -1), dtype=torch.float64)
