"""Centred orthonormal Fourier transforms and field-of-view changes.

One convention for the whole project: the origin of an axis of n points is at index n // 2, in
k-space and in the image, for odd and even n, and the transform is unitary.  The same functions
take NumPy and torch arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft


def to_image(kspace: Any, axes: Sequence[int] = (-2, -1)) -> Any:
    """Inverse centred orthonormal FFT, k-space to image.

    Parameters
    ----------
    kspace : numpy.ndarray or torch.Tensor, complex, (..., y, x)
    axes : axes to transform.
    """
    return _centred(kspace, tuple(axes), inverse=True)


def to_kspace(image: Any, axes: Sequence[int] = (-2, -1)) -> Any:
    """Centred orthonormal FFT, image to k-space (the adjoint and inverse of `to_image`)."""
    return _centred(image, tuple(axes), inverse=False)


def resize(x: Any, shape: Sequence[int], axes: Sequence[int] = (-2, -1)) -> Any:
    """Crop or zero-pad `axes` to `shape` about the origin (index n // 2 stays the origin).

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
    """Crop or pad the field of view of k-space along an axis to its central `points` points."""
    if kspace.shape[axis] == points:
        return kspace
    return to_kspace(resize(to_image(kspace, (axis,)), (points,), (axis,)), (axis,))


def resample(
    image: Any,
    shape: Sequence[int],
    fov_fraction: Sequence[float] = (1.0, 1.0),
    axes: Sequence[int] = (-2, -1),
) -> Any:
    """Bring an image onto another matrix: crop or pad the field of view, then interpolate.

    Parameters
    ----------
    image : complex or real array, (..., y, x)
    shape : of the result along `axes`.
    fov_fraction : field of view of the result over that of `image`, along `axes`.
    axes : axes to resample.

    Returns
    -------
    Array (..., *shape).  Interpolation is by zero-padding or cropping k-space and keeps the
    intensity of a pixel (not the energy of the image).
    """
    for size, fraction, axis in zip(shape, fov_fraction, axes, strict=True):
        cropped = max(1, round(image.shape[axis] * fraction))
        image = resize(image, (cropped,), (axis,))
        if size != cropped:
            scale = float(np.sqrt(size / cropped))
            image = to_image(resize(to_kspace(image, (axis,)), (size,), (axis,)), (axis,)) * scale
    return image


def fft(x: Any, axes: Sequence[int], inverse: bool = False, threads: int = 1) -> Any:
    """Orthonormal FFT with the origin at index 0; `x` may be overwritten.

    Tensors are transformed by torch, with its own threads (those of SciPy would wait for them),
    arrays by SciPy with `threads`.
    """
    name = "ifftn" if inverse else "fftn"
    if isinstance(x, np.ndarray):
        transform = getattr(scipy.fft, name)
        return transform(x, axes=axes, norm="ortho", overwrite_x=True, workers=threads)
    transform = getattr(sys.modules["torch"].fft, name)  # whoever made the tensor has imported it
    if len(axes) == 1:
        # Always along contiguous memory: for one image alone torch leaves MKL strides that it
        # rounds by, for several it copies, and a sample is to be the same alone and in company.
        along = x.movedim(axes[0], -1).contiguous()
        return transform(along, dim=(-1,), norm="ortho").movedim(-1, axes[0])
    return transform(x, dim=tuple(axes), norm="ortho")


def _centred(x: Any, axes: tuple[int, ...], inverse: bool) -> Any:
    if isinstance(x, np.ndarray):
        shifted = scipy.fft.ifftshift(x, axes=axes)
        return scipy.fft.fftshift(fft(shifted, axes, inverse), axes=axes)
    shifts = sys.modules["torch"].fft
    return shifts.fftshift(fft(shifts.ifftshift(x, dim=axes), axes, inverse), dim=axes)


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
