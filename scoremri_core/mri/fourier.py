"""Centred orthonormal Fourier transforms and field-of-view changes.

The origin of an axis of n points is index n // 2, in k-space and in the image, for odd and even n.
All functions take NumPy arrays and torch tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft


def to_image(kspace: Any, axes: Sequence[int] = (-2, -1)) -> Any:
    """Transform k-space to the image by the inverse centred orthonormal FFT.

    Parameters
    ----------
    kspace : complex array or tensor
    axes : sequence of int
        Axes to transform.

    Returns
    -------
    complex array or tensor, shape of `kspace`
    """
    return _centred(kspace, tuple(axes), inverse=True)


def to_kspace(image: Any, axes: Sequence[int] = (-2, -1)) -> Any:
    """Transform an image to k-space by the centred orthonormal FFT, the inverse of `to_image`.

    Parameters
    ----------
    image : complex array or tensor
    axes : sequence of int
        Axes to transform.

    Returns
    -------
    complex array or tensor, shape of `image`
    """
    return _centred(image, tuple(axes), inverse=False)


def resize(x: Any, shape: Sequence[int], axes: Sequence[int] = (-2, -1)) -> Any:
    """Crop or zero-pad axes around the origin.

    Parameters
    ----------
    x : array or tensor
    shape : sequence of int
        New sizes of `axes`.
    axes : sequence of int

    Returns
    -------
    array or tensor

    Examples
    --------
    >>> resize(np.array([[1, 2, 3]]), (5,), (1,))
    array([[0, 1, 2, 3, 0]])
    >>> resize(np.array([[1, 2, 3, 4]]), (3,), (1,))
    array([[2, 3, 4]])
    """
    for size, axis in zip(shape, axes, strict=True):
        x = _resize_axis(x, size, axis % x.ndim)
    return x


def change_field_of_view(kspace: Any, points: int, axis: int) -> Any:
    """Crop or zero-pad the field of view of k-space.

    Parameters
    ----------
    kspace : complex array or tensor
    points : int
        New size of the axis.
    axis : int

    Returns
    -------
    complex array or tensor
    """
    if kspace.shape[axis] == points:
        return kspace
    return to_kspace(resize(to_image(kspace, (axis,)), (points,), (axis,)), (axis,))


def resample(
    image: Any,
    shape: Sequence[int],
    fov_fraction: Sequence[float] = (1.0, 1.0),
    axes: Sequence[int] = (-2, -1),
) -> Any:
    """Crop or zero-pad the field of view of an image, then interpolate it to another matrix.

    Interpolates by zero-padding or cropping k-space, and preserves the intensity of pixels.

    Parameters
    ----------
    image : complex or real array
    shape : sequence of int
        New sizes of `axes`.
    fov_fraction : sequence of float
        New over present field of view, per axis.
    axes : sequence of int

    Returns
    -------
    array
    """
    for size, fraction, axis in zip(shape, fov_fraction, axes, strict=True):
        cropped = max(1, round(image.shape[axis] * fraction))
        image = resize(image, (cropped,), (axis,))
        if size != cropped:
            scale = float(np.sqrt(size / cropped))
            image = to_image(resize(to_kspace(image, (axis,)), (size,), (axis,)), (axis,)) * scale
    return image


def fft(x: Any, axes: Sequence[int], inverse: bool = False, threads: int = 1) -> Any:
    """Transform by the orthonormal FFT with the origin at index 0.

    Parameters
    ----------
    x : complex array or tensor
        An array may be overwritten.
    axes : sequence of int
    inverse : bool
    threads : int
        For arrays; tensors use the threads of torch.

    Returns
    -------
    complex array or tensor, shape of `x`
    """
    name = "ifftn" if inverse else "fftn"
    if isinstance(x, np.ndarray):
        transform = getattr(scipy.fft, name)
        return transform(x, axes=axes, norm="ortho", overwrite_x=True, workers=threads)
    transform = getattr(sys.modules["torch"].fft, name)  # imported already, by the caller
    if len(axes) == 1:
        # contiguous, since the rounding of MKL depends on strides and torch copies only batches:
        # a sample must not depend on the batch
        along = x.movedim(axes[0], -1).contiguous()
        return transform(along, dim=(-1,), norm="ortho").movedim(-1, axes[0])
    return transform(x, dim=tuple(axes), norm="ortho")


def _centred(x: Any, axes: tuple[int, ...], inverse: bool) -> Any:
    if isinstance(x, np.ndarray):
        shifted = scipy.fft.ifftshift(x, axes=axes)
        return scipy.fft.fftshift(fft(shifted, axes, inverse), axes=axes)
    torch_fft = sys.modules["torch"].fft
    return torch_fft.fftshift(fft(torch_fft.ifftshift(x, dim=axes), axes, inverse), dim=axes)


def _resize_axis(x: Any, size: int, axis: int) -> Any:
    n = x.shape[axis]
    if size <= n:
        start = n // 2 - size // 2
        return x[(slice(None),) * axis + (slice(start, start + size),)]
    before = size // 2 - n // 2
    shape = list(x.shape)
    shape[axis] = size
    out = np.zeros(shape, x.dtype) if isinstance(x, np.ndarray) else x.new_zeros(shape)
    out[(slice(None),) * axis + (slice(before, before + n),)] = x
    return out
