"""Eigenvectors of ESPIRiT for stacks of slices.

The sensitivities at a pixel r are the eigenvector with eigenvalue 1 of

    A(r) = 1/(ky kx) sum_n g_n(r) g_n(r)^H

where the g_n are the images of the ky x kx kernels that span the row space of the calibration
matrix (docs/methods.md, Eq. (16), as G). A(r) is a trigonometric polynomial with 2 k - 1 lags per
axis, so that it is determined by its values on a grid of that size and the kernels are not
zero-padded to the size of the image.

All functions take NumPy or CuPy arrays, and the module as `xp`.

References
----------
.. [1] Uecker M et al. ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI. Magn Reson
   Med 71:990-1001 (2014).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np

from scoremri_core.threads import threads

KEPT_SINGULAR_VALUES = 0.02  # threshold relative to the largest, as in sigpy
RESIDUAL = 3e-4  # ||A v - lambda v|| at which an eigenvector has converged
ROUNDS = 7  # of power iterations
CHUNK_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}


def kernels(block: Any, kernel: tuple[int, int], noise: float, xp: Any, whole: Any = None) -> Any:
    """Compute the kernels that span the signal space of the calibration matrix.

    Parameters
    ----------
    block : complex array, (slice, coil, y, x)
        Calibration region.
    kernel : tuple of int, (y, x)
        Widths.
    noise : float
        Sd of each real component of the noise, which sets a threshold of singular values.
    xp : module
    whole : bool array, (position,), optional
        Windows of the block to use. Default: all.

    Returns
    -------
    complex array, (slice, coil, ky, kx, n)
        Padded with zeros in slices with fewer kernels.
    """
    slices, coils = block.shape[:2]
    windows = xp.lib.stride_tricks.sliding_window_view(block, kernel, axis=(2, 3))
    # one column per position of the window: (slice, coil * ky * kx, positions)
    matrix = windows.transpose(0, 1, 4, 5, 2, 3).reshape(slices, coils * math.prod(kernel), -1)
    if whole is not None:
        matrix = matrix[..., whole]
    tall = matrix.shape[1] > matrix.shape[2]
    adjoint = matrix.conj().swapaxes(1, 2)
    gram = adjoint @ matrix if tall else matrix @ adjoint
    # slice by slice, since CuPy uses the slower Jacobi method for stacks
    values, vectors = map(xp.stack, zip(*(xp.linalg.eigh(g) for g in gram), strict=True))
    singular = xp.sqrt(xp.maximum(values, 0))
    largest = singular[:, -1:]
    # largest singular value of a matrix of independent noise (Marchenko-Pastur)
    floor = noise * np.sqrt(2) * sum(np.sqrt(n) for n in matrix.shape[1:])
    kept = singular >= xp.maximum(KEPT_SINGULAR_VALUES * largest, xp.minimum(floor, largest))
    kept &= singular > 0
    count = int(kept.sum(axis=1).max())  # the last ones, in ascending order
    weights = kept / xp.where(kept & tall, singular, 1)
    vectors = vectors[..., -count:] * weights[:, None, -count:].astype(xp.float32)
    if tall:
        vectors = matrix @ vectors
    return vectors.reshape(slices, coils, *kernel, -1)


def lag_matrices(kernels: Any, xp: Any) -> Any:
    """Compute the autocorrelation of kernels.

    Parameters
    ----------
    kernels : complex array, (slice, coil, ky, kx, n)
    xp : module

    Returns
    -------
    complex64 array, (slice, 2 ky - 1, 2 kx - 1, coil, coil)
        Lag 0 at index 0.
    """
    kernel = kernels.shape[2:4]
    points = tuple(2 * k - 1 for k in kernel)
    coarse = xp.fft.ifft2(kernels, s=points, axes=(2, 3)).transpose(0, 2, 3, 1, 4)
    coarse = coarse * (math.prod(points) / math.prod(kernel) ** 0.5)
    squared = coarse @ coarse.conj().swapaxes(-1, -2)
    return xp.fft.fft2(squared, axes=(1, 2), norm="forward").astype(xp.complex64)


def eigenvectors(
    lags: Any, shape: tuple[int, int], sets: int, xp: Any, strides: tuple[int, int] = (1, 1)
) -> tuple[Any, Any]:
    """Compute the leading eigenvectors of A(r), in chunks of slices or rows.

    Parameters
    ----------
    lags : complex array, (slice, 2 ky - 1, 2 kx - 1, coil, coil)
        Result of `lag_matrices`.
    shape : tuple of int, (y, x)
        Matrix of the image.
    sets : int
        Number of eigenvectors.
    xp : module
    strides : tuple of int, (y, x)
        Compute every n-th pixel only.

    Returns
    -------
    vectors : complex64 array, (slice, set, coil, y, x)
    values : float32 array, (slice, set, y, x)
        Eigenvalues.
    """
    slices, height, width = lags.shape[:3]
    coils = lags.shape[-1]
    along_y, along_x = (
        _waves(n, lag, xp)[::stride]
        for n, lag, stride in zip(shape, (height, width), strides, strict=True)
    )
    ny, nx = len(along_y), len(along_x)
    maps = xp.empty((slices, sets, coils, ny, nx), xp.complex64)
    values = xp.empty((slices, sets, ny, nx), xp.float32)
    rows = max(1, CHUNK_BYTES["cpu" if xp is np else "cuda"] // (8 * nx * coils**2))

    def compute(part: tuple[slice, slice]) -> None:
        where, y = part
        chunk = along_y[y] @ lags[where].reshape(-1, height, width * coils**2)
        matrices = along_x @ chunk.reshape(-1, width, coils**2)
        matrices = matrices.reshape(-1, coils, coils)
        for i in range(sets):
            vectors, lengths = leading(matrices, xp)
            grid = maps[where, 0, 0, y].shape
            maps[where, i, :, y] = xp.moveaxis(vectors.reshape(*grid, coils), -1, 1)
            values[where, i, y] = lengths.reshape(grid)
            if i + 1 < sets:
                # deflate: (1 - v v^H) A (1 - v v^H)
                pair = matrices @ vectors - vectors * (lengths / 2)[:, None, None]
                pair = xp.concatenate([vectors, pair], axis=-1)
                matrices -= pair @ pair[..., ::-1].conj().swapaxes(-1, -2)

    parts = product(_spans(slices, max(1, rows // ny)), _spans(ny, rows))
    if xp is np:
        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(compute, parts))
    else:  # the current device of CuPy is per thread
        list(map(compute, parts))
    return maps, values


def leading(matrices: Any, xp: Any) -> tuple[Any, Any]:
    """Compute leading eigenvectors by power iteration with repeated squaring.

    The residual falls at least as 1/m with the number of steps m, for any gap between eigenvalues,
    and squaring the matrices makes m grow exponentially.

    Parameters
    ----------
    matrices : complex64 array, (n, coil, coil)
        Hermitian, positive semidefinite.
    xp : module

    Returns
    -------
    vectors : complex64 array, (n, coil, 1)
    values : float32 array, (n,)
        Eigenvalues.
    """
    coils = matrices.shape[-1]
    start = np.random.default_rng(0).normal(size=(2, coils, 1))
    start = xp.asarray(start[0] + 1j * start[1], dtype=xp.complex64)
    vectors = xp.broadcast_to(start, (*matrices.shape[:2], 1)).copy()
    values = xp.empty(len(matrices), xp.float32)
    active = slice(None)
    # the identity yields a unit vector where all kernels are zero
    power = matrices + 1e-6 * xp.eye(coils, dtype=xp.complex64)
    for i in range(ROUNDS):
        # 16 steps, then 4 times as many per round; fewer squarings at first, since matrix products
        # cost more than steps until some pixels have converged
        squarings, steps = (2, 4) if i else (1, 8)
        power *= 1 / xp.trace(power, axis1=1, axis2=2).real[:, None, None]
        for _ in range(squarings):
            power = power @ power
        vector = vectors[active]
        for _ in range(steps):
            vector = power @ vector
        vector *= 1 / xp.sqrt((xp.abs(vector) ** 2).sum(axis=1, keepdims=True))
        product = matrices[active] @ vector
        value = (vector.conj() * product).sum(axis=(1, 2)).real
        vectors[active], values[active] = vector, value
        residual = product - vector * value[:, None, None]
        remaining = (xp.abs(residual) ** 2).sum(axis=(1, 2)) > RESIDUAL**2
        if not remaining.any():
            break
        active = xp.arange(len(matrices))[active][remaining]
        power = power[remaining]
    return vectors, values


def _spans(n: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _waves(n: int, lags: int, xp: Any) -> Any:
    """exp(2 pi i r l / n), (n, lags), with r from -(n // 2) and lags l in FFT order."""
    r = xp.arange(n) - n // 2
    lag = xp.fft.fftfreq(lags, 1 / lags)
    return xp.exp(2j * np.pi / n * r[:, None] * lag).astype(xp.complex64)
