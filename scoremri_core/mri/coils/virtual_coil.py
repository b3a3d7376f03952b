"""The virtual coil, whose phase is zero by definition: a combination that sees all of the object.

All functions take NumPy or CuPy arrays, and its module as `xp`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GRID = 48  # points per axis at which the virtual coil and folds are sought
STEPS = 30
OBJECT = 0.1  # of the signal's 99th percentile: below it is background


def strides(shape: tuple[int, int]) -> tuple[int, int]:
    """Those that leave about 48 pixels per axis."""
    return max(1, shape[0] // GRID), max(1, shape[1] // GRID)


def object_signal(block: Any, shape: tuple[int, int], xp: Any) -> Any:
    """Signal (slice, y, x) of a calibration block at every n-th pixel; zero in the background."""
    to_y, to_x = (
        xp.exp(2j * np.pi / n * (xp.arange(0, n, stride) - n // 2)[:, None] * xp.arange(width))
        for n, stride, width in zip(shape, strides(shape), block.shape[-2:], strict=True)
    )
    signal = xp.sqrt((xp.abs(to_y @ block @ to_x.T) ** 2).sum(axis=1))
    signal = xp.minimum(signal / xp.percentile(signal, 99, axis=(1, 2), keepdims=True), 1)
    return signal * (signal > OBJECT)


def virtual_coil(maps: Any, block: Any, signal: Any, xp: Any) -> Any:
    """Coil combinations p (slice, coil) that see all of the object, so that its phase is smooth.

    A null of p is a vortex in the phase of maps and image, which no prior takes for anatomy. From
    the principal component of the calibration data, fixed-point steps towards the minimum of
    sum_r w(r) |p^H S(r)|^-2 lead away from nulls, w being the signal at low resolution.
    """
    flat = block.reshape(*block.shape[:2], -1)
    virtual = xp.linalg.eigh(flat @ flat.conj().swapaxes(1, 2))[1][..., -1]
    # Eigenvectors carry an arbitrary phase.
    largest = xp.take_along_axis(virtual, xp.abs(virtual).argmax(axis=1)[:, None], axis=1)
    virtual = virtual * (largest.conj() / xp.abs(largest))

    stride_y, stride_x = strides(maps.shape[-2:])
    maps = maps[..., ::stride_y, ::stride_x].reshape(*maps.shape[:2], -1)
    weights = signal.reshape(len(maps), -1)
    for _ in range(STEPS):
        seen = (virtual.conj()[:, None] @ maps)[:, 0]
        pull = weights * seen.conj() / (xp.abs(seen) ** 2 + 0.01) ** 2
        step = (maps @ pull[..., None])[..., 0]
        virtual = virtual + 0.5 * step / xp.linalg.norm(step, axis=1, keepdims=True)
        virtual = virtual / xp.linalg.norm(virtual, axis=1, keepdims=True)
    return virtual.astype(xp.complex64)


def referenced(maps: Any, virtual_coil: Any, xp: Any) -> Any:
    """Maps (slice, set, coil, y, x) whose phase makes the virtual coil real and positive."""
    seen = (maps * virtual_coil.conj()[:, None, :, None, None]).sum(axis=2, keepdims=True)
    return maps * xp.exp(-1j * xp.angle(seen))
