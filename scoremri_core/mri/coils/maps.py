"""Coil sensitivity maps from the fully sampled centre of k-space.

By ESPIRiT (`scoremri_core.mri.coils.espirit`); where the centre is too small for its kernels, as
images of low resolution.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from scoremri_core.errors import CalibrationError, InputError
from scoremri_core.mri.coils.espirit import eigenvectors, kernels, lag_matrices
from scoremri_core.mri.coils.map_sets import aliases, align, taper
from scoremri_core.mri.coils.virtual_coil import object_signal, referenced, strides, virtual_coil
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise.covariance import whitening_matrix
from scoremri_core.mri.sampling import measured

_log = logging.getLogger(__name__)

_WIDEST = 32  # calibration samples used per axis: more cost time and change the maps little
_NARROWEST_FOR_KERNELS = 12
_NARROWEST = 4


def calibration_extent(sampled: Any) -> tuple[slice, slice]:
    """The fully sampled block around DC, from the samples actually received.

    Lost samples (see `lost`) do not interrupt it. Of all blocks that contain DC, the one that
    serves calibration best: the largest after capping each side at 32 samples, then the largest
    outright.

    Parameters
    ----------
    sampled : (y, x) bool mask, or (coil, y, x) centred k-space with zeros where not sampled.

    Returns
    -------
    Slices along (y, x).

    Raises
    ------
    CalibrationError
        DC itself was not sampled, or less than 4 x 4 samples around it.
    """
    array = np.asarray(sampled)
    mask = measured(array) if array.ndim == 3 else array.astype(bool)
    mask = mask | lost(mask)
    ny, nx = mask.shape
    cy, cx = ny // 2, nx // 2
    if not mask[cy, cx]:
        raise CalibrationError("There are no calibration lines: the centre of k-space is empty.")
    # Per row, the run of samples around the DC column; a row without it ends the block.
    left = cx - np.argmin(np.pad(mask[:, cx::-1], ((0, 0), (0, 1))), axis=1) + 1
    right = cx + np.argmin(np.pad(mask[:, cx:], ((0, 0), (0, 1))), axis=1)
    up = np.maximum.accumulate(left[cy::-1]), np.minimum.accumulate(right[cy::-1])
    down = np.maximum.accumulate(left[cy:]), np.minimum.accumulate(right[cy:])
    starts = np.maximum(up[0][:, None], down[0])
    stops = np.minimum(up[1][:, None], down[1])
    width = np.maximum(stops - starts, 0)
    height = np.arange(len(up[0]))[:, None] + np.arange(len(down[0])) + 1
    worth = np.minimum(height, _WIDEST) * np.minimum(width, _WIDEST)
    best = np.argmax(worth * float(2 * ny * nx) + height * width)
    above, below = np.unravel_index(best, worth.shape)
    rows = slice(int(cy - above), int(cy + below + 1))
    columns = slice(int(starts[above, below]), int(stops[above, below]))
    size = tuple(s.stop - s.start for s in (rows, columns))
    if min(size) < _NARROWEST:
        raise CalibrationError(
            f"There are no calibration lines: of {size[0]} x {size[1]} samples around the "
            f"centre of k-space, expected at least {_NARROWEST} x {_NARROWEST}."
        )
    return rows, columns


def lost(mask: Any) -> Any:
    """Samples (y, x) that were not measured between two that were above and two below.

    A readout or sample that was discarded leaves them; no undersampling pattern does.
    """
    sampled = np.pad(mask, ((2, 2), (0, 0)))
    return ~mask & sampled[:-4] & sampled[1:-3] & sampled[3:-1] & sampled[4:]


def estimate_coil_maps(
    calibration: Any,
    sets: int | str = 1,
    noise_covariance: Any = None,
    kernel: int = 6,
    device: str = "cpu",
    mask: Any = None,
) -> Any:
    """ESPIRiT coil maps on the grid of the calibration k-space.

    The phase is zero in a virtual coil, a combination of all coils chosen to see all of the
    object, so it does not hang on one coil that vanishes somewhere.

    Parameters
    ----------
    calibration : (coil, y, x) or (slice, coil, y, x) complex
        Centred k-space, zeros where not sampled, at the size of the image.  NumPy, or CuPy (then
        the maps are computed and returned there).
    sets : 1, 2 or "auto"
        A second set describes pixels where two parts of the object fold onto each other.  "auto"
        estimates it where it is needed: in slices whose object folds in more than a few pixels.
    noise_covariance : (coil, coil), or (slice, coil, coil), optional
        Maps are estimated on whitened data, with kernels down to the noise, and then mapped back.
    kernel : int
        Width k of the kernels.
    device : "cpu", "cuda" or "cuda:N"
        Where to compute; CUDA needs CuPy, without it the CPU is used.
    mask : (y, x) or (slice, y, x) bool, optional
        Which samples were measured; by default those that are not zero in every coil.

    Returns
    -------
    (set, coil, y, x) complex64, or (slice, set, coil, y, x), in the coils of the input.  Set 0
    has sum |S|^2 = 1 in every pixel (the eigenvalue does not crop it); set 1 fades out where its
    eigenvalue falls from 0.9 to 0.7.  "auto" gives one set if no slice needs two; otherwise two,
    set 1 being zero in the slices that need one.

    Raises
    ------
    CalibrationError
        Values that are not finite, or no block of at least 4 x 4 samples around DC.
    InputError
        Wrong shape or number of sets.
    """
    if sets not in (1, 2, "auto"):
        raise InputError(f'maps is {sets}: expected 1 or 2 sets, or "auto".')
    if calibration.ndim not in (3, 4):
        raise InputError(
            f"Calibration data have shape {calibration.shape}: "
            "expected (coil, y, x) or (slice, coil, y, x)."
        )
    xp = _array_module(calibration, device)
    on_host = isinstance(calibration, np.ndarray)
    with _device(xp, device):
        ksp = xp.asarray(calibration, dtype=xp.complex64).reshape(-1, *calibration.shape[-3:])
        if not bool(xp.isfinite(ksp).all()):
            raise CalibrationError("The calibration lines hold values that are not finite.")
        masks = _to_host((ksp != 0).any(axis=1)) if mask is None else np.asarray(mask, bool)
        masks = np.broadcast_to(masks, (len(ksp), *ksp.shape[-2:]))
        covariances = [None] * len(ksp)
        if noise_covariance is not None:
            given = np.asarray(noise_covariance)
            covariances = list(np.broadcast_to(given, (len(ksp), *given.shape[-2:])))
        maps = xp.zeros((len(ksp), 1 if sets == 1 else 2, *ksp.shape[1:]), xp.complex64)
        # slice by slice: the maps of a slice do not depend on the others, to the last bit
        for i, (sampled, covariance) in enumerate(zip(masks, covariances, strict=True)):
            whitening = None if covariance is None else whitening_matrix(covariance)[None]
            extent = calibration_extent(sampled)
            own, whole = _without_losses(ksp[i : i + 1], sampled, extent, kernel, xp)
            found = _of_one_extent(own, extent, sets, whitening, kernel, whole, xp)
            maps[i, : found.shape[1]] = found[0]
        if sets == "auto" and not bool(maps[:, 1].any()):
            maps = maps[:, :1]
        maps = maps if calibration.ndim == 4 else maps[0]
        return _to_host(maps) if on_host else maps


def _without_losses(
    ksp: Any, mask: Any, extent: tuple[slice, slice], kernel: int, xp: Any
) -> tuple[Any, Any]:
    """K-space (slice, coil, y, x) with lost samples interpolated, and the windows without any.

    The windows of the calibration block are a bool array (position,), or None for all.
    """
    holes = lost(mask)
    rows, columns = map(_central, extent, mask.shape)
    if not holes[rows, columns].any():
        return ksp, None
    y, x = np.nonzero(holes)
    filled = ksp.copy()
    filled[..., y, x] = (ksp[..., y - 1, x] + ksp[..., y + 1, x]) / 2
    windows = np.lib.stride_tricks.sliding_window_view(~holes[rows, columns], (kernel, kernel))
    return filled, xp.asarray(windows.all(axis=(2, 3)).ravel())


def _of_one_extent(
    ksp: Any,
    extent: tuple[slice, slice],
    sets: int | str,
    whitening: Any,
    kernel: int,
    whole: Any,
    xp: Any,
) -> Any:
    """Maps (slice, set, coil, y, x) of slices that were sampled alike around DC.

    One set where a second one is zero in all of them.  `whole` says which windows of the
    calibration block kernels are estimated from, None all.
    """
    noise = 0.0
    if whitening is not None:
        noise = 1.0
        ksp = _mix(xp.asarray(whitening, dtype=xp.complex64), ksp)
    shape = ksp.shape[-2:]
    rows, columns = map(_central, extent, shape)
    block = ksp[..., rows, columns]
    signal = object_signal(block, shape, xp)
    if calibration_warning(extent, kernel):
        maps = _low_resolution(ksp, extent, xp)
    else:
        lags = lag_matrices(kernels(block, kernel, noise, xp, whole), xp)
        two = xp.full(len(ksp), sets == 2)
        if sets == "auto":
            two = aliases(eigenvectors(lags, shape, 2, xp, strides(shape))[1][:, 1], signal)
        maps, values = eigenvectors(lags, shape, 1 + bool(two.any()), xp)
    virtual = virtual_coil(maps[:, 0], block, signal, xp)
    if maps.shape[1] == 2:
        maps = align(maps, values * two[:, None, None, None], virtual, xp)
    maps = referenced(maps, virtual, xp)
    if whitening is not None:
        unwhitening = xp.asarray(np.linalg.inv(whitening), dtype=xp.complex64)
        maps = _mix(unwhitening[:, None], maps)
    maps = _unit(maps, axis=2, xp=xp)
    if maps.shape[1] == 2:
        maps[:, 1] *= (taper(values[:, 1], xp) * two[:, None, None])[:, None]
    return maps


def calibration_warning(extent: tuple[slice, slice], kernel: int = 6) -> str | None:
    """Why a calibration block gives low-resolution images instead of ESPIRiT maps, or None."""
    ny, nx = (s.stop - s.start for s in extent)
    if min(ny, nx) >= max(_NARROWEST_FOR_KERNELS, 2 * kernel):
        return None
    return (
        f"{ny} x {nx} calibration samples are too few for ESPIRiT: the coil maps are "
        "low-resolution images"
    )


def _low_resolution(ksp: Any, extent: tuple[slice, slice], xp: Any) -> Any:
    """Hann-windowed images of the calibration block as maps (slice, 1, coil, y, x)."""
    windows = []
    for s, n in zip(extent, ksp.shape[-2:], strict=True):
        position = xp.arange(s.start, s.stop) - n // 2
        half = 1 + max(n // 2 - s.start, s.stop - 1 - n // 2)
        windows.append(xp.cos(np.pi / 2 * position / half) ** 2)
    maps = xp.zeros_like(ksp)
    rows, columns = extent
    maps[..., rows, columns] = ksp[..., rows, columns] * xp.outer(*windows)
    return xp.asarray(to_image(_to_host(maps)), dtype=xp.complex64)[:, None]


def _mix(matrix: Any, arrays: Any) -> Any:
    """Apply matrices (..., coil, coil) to the coils of (..., coil, y, x)."""
    flat = arrays.reshape(*arrays.shape[:-2], -1)
    return (matrix @ flat).reshape(arrays.shape)


def _unit(maps: Any, axis: int, xp: Any) -> Any:
    """Scale to sum |S|^2 = 1 along the coils; equal parts where there is nothing to scale."""
    norm = xp.sqrt((xp.abs(maps) ** 2).sum(axis=axis, keepdims=True))
    equal = maps.shape[axis] ** -0.5
    return xp.where(norm > 0, maps / xp.where(norm > 0, norm, 1), equal).astype(xp.complex64)


def _central(extent: slice, n: int) -> slice:
    """At most 32 samples of the extent, as central around DC as it allows."""
    if extent.stop - extent.start <= _WIDEST:
        return extent
    start = min(max(n // 2 - _WIDEST // 2, extent.start), extent.stop - _WIDEST)
    return slice(start, start + _WIDEST)


def _array_module(array: Any, device: str) -> Any:
    """NumPy, or CuPy where the array is CuPy's or CUDA is wanted and CuPy is there."""
    if isinstance(array, np.ndarray) and not device.startswith("cuda"):
        return np
    try:
        import cupy
    except ImportError:
        _log.info("CuPy is not installed: coil maps are computed on the CPU.")
        return np
    return cupy


def _device(xp: Any, device: str) -> AbstractContextManager[Any]:
    index = int(device.partition(":")[2] or 0)
    return nullcontext() if xp is np else xp.cuda.Device(index)


def _to_host(array: Any) -> Any:
    return array if isinstance(array, np.ndarray) else array.get()
