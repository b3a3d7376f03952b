"""The eigenvectors of ESPIRiT, of all slices of a stack and, in chunks, of all pixels at once.

Uecker et al., "ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI", MRM 71:990-1001
(2014).  The sensitivities at a pixel r are the eigenvector with eigenvalue 1 of

    A(r) = 1/k^2 sum_n g_n(r) g_n(r)^H

where the g_n are the images of the k x k kernels that span the calibration matrix's row space.
A is a trigonometric polynomial of 2k - 1 lags per axis, so its values on a grid of that many
points determine it: the kernels are never brought to the image's size.

All functions take NumPy or CuPy arrays, and its module as `xp`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np

from scoremri_core.threads import threads

KEPT_SINGULAR_VALUES = 0.02  # of the largest, as in sigpy
RESIDUAL = 3e-4  # ||A v - lambda v|| of an eigenvector that has converged
ROUNDS = 7
CHUNK_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}


def kernels(block: Any, kernel: int, noise: float, xp: Any, whole: Any = None) -> Any:
    """Kernels (slice, coil, k, k, n) spanning the signal's part of the calibration matrix.

    A slice that has fewer than others has kernels of zero for the rest.  `whole` (position,) says
    which windows of the block to use, None all.
    """
    slices, coils = block.shape[:2]
    windows = xp.lib.stride_tricks.sliding_window_view(block, (kernel, kernel), axis=(2, 3))
    # One column a position of the window: (slice, coil * k * k, positions).
    matrix = windows.transpose(0, 1, 4, 5, 2, 3).reshape(slices, coils * kernel**2, -1)
    if whole is not None:
        matrix = matrix[..., whole]
    tall = matrix.shape[1] > matrix.shape[2]
    adjoint = matrix.conj().swapaxes(1, 2)
    gram = adjoint @ matrix if tall else matrix @ adjoint
    # slice by slice: of a stack CuPy takes Jacobi's method, which is for small matrices
    values, vectors = map(xp.stack, zip(*(xp.linalg.eigh(one) for one in gram), strict=True))
    singular = xp.sqrt(xp.maximum(values, 0))
    largest = singular[:, -1:]
    # Largest singular value of a matrix of independent noise (Marchenko and Pastur).
    floor = noise * np.sqrt(2) * sum(np.sqrt(n) for n in matrix.shape[1:])
    kept = singular >= xp.maximum(KEPT_SINGULAR_VALUES * largest, xp.minimum(floor, largest))
    kept &= singular > 0
    count = int(kept.sum(axis=1).max())  # the last ones: they come in ascending order
    weights = kept / xp.where(kept & tall, singular, 1)
    vectors = vectors[..., -count:] * weights[:, None, -count:].astype(xp.float32)
    if tall:
        vectors = matrix @ vectors
    return vectors.reshape(slices, coils, kernel, kernel, -1)


def lag_matrices(kernels: Any, xp: Any) -> Any:
    """Autocorrelation of the kernels, (slice, 2k - 1, 2k - 1, coil, coil), lag 0 at index 0."""
    kernel = kernels.shape[2]
    coarse = xp.fft.ifft2(kernels, s=(2 * kernel - 1,) * 2, axes=(2, 3)).transpose(0, 2, 3, 1, 4)
    coarse = coarse * ((2 * kernel - 1) ** 2 / kernel)
    squared = coarse @ coarse.conj().swapaxes(-1, -2)
    return xp.fft.fft2(squared, axes=(1, 2), norm="forward").astype(xp.complex64)


def eigenvectors(
    lags: Any, shape: tuple[int, int], sets: int, xp: Any, strides: tuple[int, int] = (1, 1)
) -> tuple[Any, Any]:
    """Leading eigenvectors (slice, set, coil, y, x) and their eigenvalues (slice, set, y, x).

    In chunks of slices or, where one is too large, of a slice's rows.
    """
    slices, width, coils = len(lags), lags.shape[1], lags.shape[-1]
    y_contiguous, along_x = (
        _waves(n, width, xp)[::stride] for n, stride in zip(shape, strides, strict=True)
    )
    ny, nx = len(y_contiguous), len(along_x)
    maps = xp.empty((slices, sets, coils, ny, nx), xp.complex64)
    values = xp.empty((slices, sets, ny, nx), xp.float32)
    rows = max(1, CHUNK_BYTES["cpu" if xp is np else "cuda"] // (8 * nx * coils**2))

    def find(part: tuple[slice, slice]) -> None:
        where, y = part
        chunk = y_contiguous[y] @ lags[where].reshape(-1, width, width * coils**2)
        matrices = along_x @ chunk.reshape(-1, width, coils**2)
        matrices = matrices.reshape(-1, coils, coils)
        for i in range(sets):
            vectors, lengths = leading(matrices, xp)
            grid = maps[where, 0, 0, y].shape
            maps[where, i, :, y] = xp.moveaxis(vectors.reshape(*grid, coils), -1, 1)
            values[where, i, y] = lengths.reshape(grid)
            if i + 1 < sets:
                # (1 - v v^H) A (1 - v v^H)
                pair = matrices @ vectors - vectors * (lengths / 2)[:, None, None]
                pair = xp.concatenate([vectors, pair], axis=-1)
                matrices -= pair @ pair[..., ::-1].conj().swapaxes(-1, -2)

    parts = product(_spans(slices, max(1, rows // ny)), _spans(ny, rows))
    if xp is np:
        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(find, parts))
    else:  # CuPy's device is that of a thread
        list(map(find, parts))
    return maps, values


def leading(matrices: Any, xp: Any) -> tuple[Any, Any]:
    """Leading eigenvectors (n, coil, 1) and eigenvalues (n,) of matrices (n, coil, coil).

    By power iteration on matrices squared again and again.  Its residual after m steps falls
    like 1/m however near the second eigenvalue is, and squaring makes m grow exponentially.
    """
    coils = matrices.shape[-1]
    start = np.random.default_rng(0).normal(size=(2, coils, 1))
    start = xp.asarray(start[0] + 1j * start[1], dtype=xp.complex64)
    vectors = xp.broadcast_to(start, (*matrices.shape[:2], 1)).copy()
    values = xp.empty(len(matrices), xp.float32)
    left = slice(None)
    # The identity keeps a vector of length one where there is no kernel at all.
    power = matrices + 1e-6 * xp.eye(coils, dtype=xp.complex64)
    for i in range(ROUNDS):
        # 16 steps, then four times as many in each round.  Of many coils a product costs more
        # than the steps that it saves: not before some pixels have converged.
        squarings, steps = (2, 4) if i else (1, 8)
        power *= 1 / xp.trace(power, axis1=1, axis2=2).real[:, None, None]
        for _ in range(squarings):
            power = power @ power
        found = vectors[left]
        for _ in range(steps):
            found = power @ found
        found *= 1 / xp.sqrt((xp.abs(found) ** 2).sum(axis=1, keepdims=True))
        image = matrices[left] @ found
        value = (found.conj() * image).sum(axis=(1, 2)).real
        vectors[left], values[left] = found, value
        off = (xp.abs(image - found * value[:, None, None]) ** 2).sum(axis=(1, 2)) > RESIDUAL**2
        if not off.any():
            break
        left = xp.arange(len(matrices))[left][off]
        power = power[off]
    return vectors, values


def _spans(n: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _waves(n: int, lags: int, xp: Any) -> Any:
    """exp(2 pi i r l / n), (n, lags), r from -(n // 2) on, the lags in the order of an FFT."""
    r = xp.arange(n) - n // 2
    lag = xp.fft.fftfreq(lags, 1 / lags)
    return xp.exp(2j * np.pi / n * r[:, None] * lag).astype(xp.complex64)
