"""Coil sensitivity maps from the fully sampled centre of k-space, by ESPIRiT.

See `scoremri_core.mri.coils.espirit`, and `scoremri_core.mri.coils.completion` for few lines.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from scoremri_core.errors import CalibrationError, InputError
from scoremri_core.mri.coils.espirit import eigenvectors, kernels, lag_matrices
from scoremri_core.mri.coils.map_sets import aliases, align, taper
from scoremri_core.mri.coils.virtual_coil import (
    object_signal,
    reference_phase,
    strides,
    virtual_coil,
)
from scoremri_core.mri.noise.covariance import whitening_matrix
from scoremri_core.mri.sampling import MAX_CALIBRATION, calibration_extent, lost_samples

logger = logging.getLogger(__name__)

MAX_KERNEL = 6  # width of the kernels


def estimate_coil_maps(
    calibration: Any,
    sets: int | str = 1,
    noise_covariance: Any = None,
    kernel: int | None = None,
    device: str = "cpu",
    mask: Any = None,
) -> Any:
    """Estimate ESPIRiT coil maps on the matrix of the calibration k-space.

    The phase reference is a virtual coil, a combination of coils that is sensitive everywhere in
    the object.

    Parameters
    ----------
    calibration : complex array, (coil, y, x) or (slice, coil, y, x)
        Centred k-space, zero where not sampled. Maps of CuPy arrays are CuPy arrays.
    sets : 1, 2 or "auto"
        Number of sets. A second set describes pixels in which two parts of the object overlap;
        "auto" estimates it in slices with more than a few of these.
    noise_covariance : complex array, (coil, coil) or (slice, coil, coil), optional
        E[n n^H], for whitening and for the threshold of the kernels.
    kernel : int, optional
        Width of the kernels on both axes. Default: 6, or a third of the samples of the calibration
        region on each axis, at least 2: wider kernels leave too few positions along that axis.
    device : str
        "cpu", "cuda" or "cuda:N". Without CuPy, the CPU is used.
    mask : bool array, (y, x) or (slice, y, x), optional
        Measured samples. Default: those that are not zero in every coil.

    Returns
    -------
    complex64 array, (set, coil, y, x) or (slice, set, coil, y, x)
        In the coils of the input. Set 0 has sum |S|^2 = 1 in every pixel, without cropping by
        eigenvalue; set 1 is tapered to zero between eigenvalues 0.9 and 0.7. For "auto", one set if
        no slice needs two, else set 1 is zero in slices that need one.

    Raises
    ------
    CalibrationError
        Values are not finite, or fewer than 4 x 4 samples around DC.
    InputError
        Wrong shape or number of sets.

    References
    ----------
    .. [1] Uecker M et al. ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI. Magn
       Reson Med 71:990-1001 (2014).
    """
    if sets not in (1, 2, "auto"):
        raise InputError(f'maps is {sets}: expected 1 or 2 sets, or "auto"')
    if calibration.ndim not in (3, 4):
        raise InputError(
            f"calibration has shape {calibration.shape}: expected (coil, y, x) or "
            "(slice, coil, y, x)"
        )
    xp = _array_module(calibration, device)
    on_host = isinstance(calibration, np.ndarray)
    with _device(xp, device):
        ksp = xp.asarray(calibration, dtype=xp.complex64).reshape(-1, *calibration.shape[-3:])
        if not bool(xp.isfinite(ksp).all()):
            raise CalibrationError("the calibration lines hold values that are not finite")
        masks = _to_host((ksp != 0).any(axis=1)) if mask is None else np.asarray(mask, bool)
        masks = np.broadcast_to(masks, (len(ksp), *ksp.shape[-2:]))
        covariances = [None] * len(ksp)
        if noise_covariance is not None:
            given = np.asarray(noise_covariance)
            covariances = list(np.broadcast_to(given, (len(ksp), *given.shape[-2:])))
        maps = xp.zeros((len(ksp), 1 if sets == 1 else 2, *ksp.shape[1:]), xp.complex64)
        # slice by slice, so that rounding does not depend on the other slices
        for i, (sampled, covariance) in enumerate(zip(masks, covariances, strict=True)):
            whitening = None if covariance is None else whitening_matrix(covariance)[None]
            extent = calibration_extent(sampled)
            widths = kernel_widths(extent) if kernel is None else (kernel, kernel)
            filled, whole = _fill_lost_samples(ksp[i : i + 1], sampled, extent, widths, xp)
            of_slice = _estimate(filled, extent, sets, whitening, widths, whole, xp)
            maps[i, : of_slice.shape[1]] = of_slice[0]
        if sets == "auto" and not bool(maps[:, 1].any()):
            maps = maps[:, :1]
        maps = maps if calibration.ndim == 4 else maps[0]
        return _to_host(maps) if on_host else maps


def _fill_lost_samples(
    ksp: Any, mask: Any, extent: tuple[slice, slice], kernel: tuple[int, int], xp: Any
) -> tuple[Any, Any]:
    """Interpolate lost samples; also return the windows (position,) without any, None for all."""
    holes = lost_samples(mask)
    rows, columns = map(_central, extent, mask.shape)
    if not holes[rows, columns].any():
        return ksp, None
    y, x = np.nonzero(holes)
    filled = ksp.copy()
    filled[..., y, x] = (ksp[..., y - 1, x] + ksp[..., y + 1, x]) / 2
    windows = np.lib.stride_tricks.sliding_window_view(~holes[rows, columns], kernel)
    return filled, xp.asarray(windows.all(axis=(2, 3)).ravel())


def _estimate(
    ksp: Any,
    extent: tuple[slice, slice],
    sets: int | str,
    whitening: Any,
    kernel: tuple[int, int],
    whole: Any,
    xp: Any,
) -> Any:
    """Estimate maps (slice, set, coil, y, x) of slices with the same calibration region.

    Returns one set if no slice needs two. `whole` selects the windows for kernels, None all.
    """
    noise = 0.0
    if whitening is not None:
        noise = 1.0
        ksp = _mix(xp.asarray(whitening, dtype=xp.complex64), ksp)
    shape = ksp.shape[-2:]
    rows, columns = map(_central, extent, shape)
    block = ksp[..., rows, columns]
    signal = object_signal(block, shape, xp)
    lags = lag_matrices(kernels(block, kernel, noise, xp, whole), xp)
    two = xp.full(len(ksp), sets == 2)
    if sets == "auto":
        two = aliases(eigenvectors(lags, shape, 2, xp, strides(shape))[1][:, 1], signal)
    maps, values = eigenvectors(lags, shape, 1 + bool(two.any()), xp)
    virtual = virtual_coil(maps[:, 0], block, signal, xp)
    if maps.shape[1] == 2:
        maps = align(maps, values * two[:, None, None, None], virtual, xp)
    maps = reference_phase(maps, virtual, xp)
    if whitening is not None:
        unwhitening = xp.asarray(np.linalg.inv(whitening), dtype=xp.complex64)
        maps = _mix(unwhitening[:, None], maps)
    maps = _normalise(maps, axis=2, xp=xp)
    if maps.shape[1] == 2:
        maps[:, 1] *= (taper(values[:, 1], xp) * two[:, None, None])[:, None]
    return maps


def kernel_widths(extent: tuple[slice, slice]) -> tuple[int, int]:
    """Choose the widths of the kernels for a calibration region.

    Parameters
    ----------
    extent : tuple of slice
        Result of `calibration_extent`.

    Returns
    -------
    tuple of int, (y, x)
    """
    y, x = (min(MAX_KERNEL, max(2, round((s.stop - s.start) / 3))) for s in extent)
    return y, x


def _mix(matrix: Any, arrays: Any) -> Any:
    """Apply matrices (..., coil, coil) to the coils of (..., coil, y, x)."""
    flat = arrays.reshape(*arrays.shape[:-2], -1)
    return (matrix @ flat).reshape(arrays.shape)


def _normalise(maps: Any, axis: int, xp: Any) -> Any:
    """Normalise to sum |S|^2 = 1 over the coils, with equal maps where all are zero."""
    norm = xp.sqrt((xp.abs(maps) ** 2).sum(axis=axis, keepdims=True))
    equal = maps.shape[axis] ** -0.5
    return xp.where(norm > 0, maps / xp.where(norm > 0, norm, 1), equal).astype(xp.complex64)


def _central(extent: slice, n: int) -> slice:
    """Limit an extent to 32 samples around DC."""
    if extent.stop - extent.start <= MAX_CALIBRATION:
        return extent
    start = min(max(n // 2 - MAX_CALIBRATION // 2, extent.start), extent.stop - MAX_CALIBRATION)
    return slice(start, start + MAX_CALIBRATION)


def _array_module(array: Any, device: str) -> Any:
    """Return CuPy for its arrays and for CUDA, if installed, else NumPy."""
    if isinstance(array, np.ndarray) and not device.startswith("cuda"):
        return np
    try:
        import cupy
    except ImportError:
        logger.info("CuPy is not installed; estimating coil maps on the CPU")
        return np
    return cupy


def _device(xp: Any, device: str) -> AbstractContextManager[Any]:
    index = int(device.partition(":")[2] or 0)
    return nullcontext() if xp is np else xp.cuda.Device(index)


def _to_host(array: Any) -> Any:
    return array if isinstance(array, np.ndarray) else array.get()
