"""Conjugate gradients for a batch of independent Hermitian systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    b: Tensor,
    preconditioner: Callable[[Tensor], Tensor],
    tolerance: float = 1e-3,
    max_iterations: int = 50,
    reference: float | None = None,
) -> tuple[Tensor, int]:
    """Solve M x = b independently for each leading (frame, sample) index.

    Converged systems stop changing while others iterate, so that a solution does not depend on the
    batch.

    Parameters
    ----------
    operator : callable
        The Hermitian positive definite M, complex (frame, sample, ...) to the same shape.
    b : complex tensor, (frame, sample, ...)
        Right-hand side.
    preconditioner : callable
        Approximate inverse of M, Hermitian positive definite.
    tolerance : float, optional
        Stop a system when |b - M x| <= tolerance |b| in the preconditioner's norm, approximately
        the error of x in the norm of M.
    max_iterations : int, optional
    reference : float, optional
        Used in place of |b|.

    Returns
    -------
    x : complex tensor, (frame, sample, ...)
    iterations : int
        Of the slowest system.
    """
    axes = tuple(range(2, b.ndim))

    def dot(p: Tensor, q: Tensor) -> Tensor:
        product = torch.view_as_real(p) * torch.view_as_real(q)
        # short sums first, then double precision: rounding must not depend on the threads' split
        short = product.sum((-3, -1) if b.ndim > 3 else -1)
        total = short.flatten(2).sum(2, dtype=torch.float64).to(product.dtype)
        return total.view(*b.shape[:2], *(1 for _ in axes))

    def add(total: Tensor, factor: Tensor, term: Tensor, out: Tensor) -> None:
        # as real numbers: torch would convert the factors to complex
        sum_of, to, place = (torch.view_as_real(part) for part in (total, term, out))
        torch.addcmul(sum_of, to, factor[..., None], out=place)

    x = torch.zeros_like(b)
    r = b.clone()
    z = preconditioner(r)
    p = z.clone()  # a preconditioner may return its argument
    rz = dot(r, z)
    threshold = tolerance**2 * (rz if reference is None else torch.full_like(rz, reference**2))
    for iteration in range(max_iterations):
        active = rz > threshold
        if not bool(active.any()):
            return x, iteration
        mp = operator(p)
        alpha = torch.where(active, rz / dot(p, mp), 0.0)
        add(x, alpha, p, out=x)
        add(r, -alpha, mp, out=r)
        z = preconditioner(r)
        rz_next = dot(r, z)
        add(z, torch.where(active, rz_next / rz, 0.0), p, out=p)
        rz = torch.where(active, rz_next, rz)
    return x, max_iterations
