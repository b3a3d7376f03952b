"""Virtual coil: the combination of coils that is the phase reference of coil maps.

All functions take NumPy or CuPy arrays, and the module as `xp`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GRID = 48  # pixels per axis used to find the virtual coil and aliases
STEPS = 30  # fixed-point iterations
OBJECT = 0.1  # of the signal's 99th percentile: threshold of the object


def strides(shape: tuple[int, int]) -> tuple[int, int]:
    """Return strides (y, x) that leave about 48 pixels per axis."""
    return max(1, shape[0] // GRID), max(1, shape[1] // GRID)


def object_signal(block: Any, shape: tuple[int, int], xp: Any) -> Any:
    """Compute the low-resolution signal of a calibration block.

    Parameters
    ----------
    block : complex array, (slice, coil, y, x)
    shape : tuple of int, (y, x)
        Matrix of the image.
    xp : module

    Returns
    -------
    real array, (slice, y, x)
        0 to 1 at every n-th pixel (see `strides`), zero in the background.
    """
    to_y, to_x = (
        xp.exp(2j * np.pi / n * (xp.arange(0, n, stride) - n // 2)[:, None] * xp.arange(width))
        for n, stride, width in zip(shape, strides(shape), block.shape[-2:], strict=True)
    )
    signal = xp.sqrt((xp.abs(to_y @ block @ to_x.T) ** 2).sum(axis=1))
    signal = xp.minimum(signal / xp.percentile(signal, 99, axis=(1, 2), keepdims=True), 1)
    return signal * (signal > OBJECT)


def virtual_coil(maps: Any, block: Any, signal: Any, xp: Any) -> Any:
    """Compute the coil combination p with sensitivity everywhere in the object.

    Nulls of p cause phase singularities in maps and image. Fixed-point steps from the principal
    component of the calibration data minimise sum_r w(r) |p^H S(r)|^-2, with the low-resolution
    signal w.

    Parameters
    ----------
    maps : complex array, (slice, coil, y, x)
    block : complex array, (slice, coil, y, x)
        Calibration region of k-space.
    signal : real array, (slice, y, x)
        Result of `object_signal`.
    xp : module

    Returns
    -------
    complex64 array, (slice, coil)
        Of unit norm.
    """
    flat = block.reshape(*block.shape[:2], -1)
    virtual = xp.linalg.eigh(flat @ flat.conj().swapaxes(1, 2))[1][..., -1]
    # fix the arbitrary phase of the eigenvector
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


def reference_phase(maps: Any, virtual_coil: Any, xp: Any) -> Any:
    """Set the phase of maps so that the virtual coil is real and positive.

    Parameters
    ----------
    maps : complex array, (slice, set, coil, y, x)
    virtual_coil : complex array, (slice, coil)
    xp : module

    Returns
    -------
    complex array, (slice, set, coil, y, x)
    """
    seen = (maps * virtual_coil.conj()[:, None, :, None, None]).sum(axis=2, keepdims=True)
    return maps * xp.exp(-1j * xp.angle(seen))
