"""Coil sensitivity maps from the fully sampled centre of k-space: ESPIRiT.

Uecker et al., "ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI", MRM 71:990-1001
(2014).  The sensitivities at a pixel r are the eigenvector with eigenvalue 1 of

    A(r) = 1/k^2 sum_n g_n(r) g_n(r)^H

where the g_n are the images of the k x k kernels that span the calibration matrix's row space.
A is a trigonometric polynomial of 2k - 1 lags per axis, so its values on a grid of that many
points determine it: the kernels are never brought to the image's size.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

import numpy as np

from scoremri_core.errors import CalibrationError, InputError
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise import whitening_matrix

_log = logging.getLogger(__name__)

_WIDEST = 32  # calibration samples used per axis: more cost time and change the maps little
_NARROWEST_FOR_KERNELS = 12
_NARROWEST = 4
_KEPT_SINGULAR_VALUES = 0.02  # of the largest, as in sigpy
_RESIDUAL = 3e-4  # ||A v - lambda v|| of an eigenvector that has converged
_ROUNDS = 7
_GRID = 48  # points per axis at which the virtual coil and folds are sought
_VIRTUAL_COIL_STEPS = 30
_OBJECT = 0.1  # of the signal's 99th percentile: below it is background
_SECOND_SET_EIGENVALUES = (0.7, 0.9)  # weight 0 below, 1 above
_FOLDED_EIGENVALUE = 0.95  # of a second set, where two parts of the object fold
_FOLDED_SHARE = 0.025  # of the object with such a second eigenvalue: above it two sets are needed
_ALIKE = 50  # power of the eigenvalues' ratio that says how alike two sets are
_CHUNK_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}


def calibration_extent(sampled: Any) -> tuple[slice, slice]:
    """The fully sampled block around DC, from the samples actually received.

    Of all blocks that contain DC, the one that serves calibration best: the largest after
    capping each side at 32 samples, then the largest outright.

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
    mask = np.any(array != 0, axis=0) if array.ndim == 3 else array.astype(bool)
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


def estimate_coil_maps(
    calibration: Any,
    sets: int | str = 1,
    noise_covariance: Any = None,
    kernel: int = 6,
    device: str = "cpu",
) -> Any:
    """ESPIRiT coil maps on the grid of the calibration k-space, of all slices of a stack at once.

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
        extents = [calibration_extent(mask) for mask in _to_host((ksp != 0).any(axis=1))]
        whitening = None
        if noise_covariance is not None:
            covariances = np.asarray(noise_covariance)
            covariances = covariances.reshape(-1, *covariances.shape[-2:])
            matrices = np.stack([whitening_matrix(covariance) for covariance in covariances])
            whitening = np.broadcast_to(matrices, (len(ksp), *matrices.shape[1:]))
        maps = xp.zeros((len(ksp), 1 if sets == 1 else 2, *ksp.shape[1:]), xp.complex64)
        for extent in (e for i, e in enumerate(extents) if e not in extents[:i]):
            alike = [i for i, other in enumerate(extents) if other == extent]
            own = None if whitening is None else whitening[alike]
            found = _of_one_extent(ksp[alike], extent, sets, own, kernel, xp)
            maps[alike, : found.shape[1]] = found
        if sets == "auto" and not bool(maps[:, 1].any()):
            maps = maps[:, :1]
        maps = maps if calibration.ndim == 4 else maps[0]
        return _to_host(maps) if on_host else maps


def _of_one_extent(
    ksp: Any, extent: tuple[slice, slice], sets: int | str, whitening: Any, kernel: int, xp: Any
) -> Any:
    """Maps (slice, set, coil, y, x) of slices that were sampled alike around DC.

    One set where a second one is zero in all of them.
    """
    noise = 0.0
    if whitening is not None:
        noise = 1.0
        ksp = _mix(xp.asarray(whitening, dtype=xp.complex64), ksp)
    shape = ksp.shape[-2:]
    rows, columns = map(_central, extent, shape)
    block = ksp[..., rows, columns]
    signal = _object_signal(block, shape, xp)
    size = tuple(s.stop - s.start for s in extent)
    if min(size) < max(_NARROWEST_FOR_KERNELS, 2 * kernel):
        _log.warning(
            "%d x %d calibration samples are too few for ESPIRiT: "
            "the coil maps are low-resolution images.",
            *size,
        )
        maps = _low_resolution(ksp, extent, xp)
    else:
        lags = _lag_matrices(_kernels(block, kernel, noise, xp), xp)
        folds = xp.full(len(ksp), sets == 2)
        if sets == "auto":
            coarse = _eigenvectors(lags, shape, 2, xp, _strides(shape))[1][:, 1]
            folded = (coarse > _FOLDED_EIGENVALUE) & (signal > 0)
            folds = folded.sum(axis=(1, 2)) > _FOLDED_SHARE * (signal > 0).sum(axis=(1, 2))
        maps, values = _eigenvectors(lags, shape, 1 + bool(folds.any()), xp)
    virtual_coil = _virtual_coil(maps[:, 0], block, signal, xp)
    if maps.shape[1] == 2:
        maps = _turned(maps, values * folds[:, None, None, None], virtual_coil, xp)
    maps = _referenced(maps, virtual_coil, xp)
    if whitening is not None:
        unwhitening = xp.asarray(np.linalg.inv(whitening), dtype=xp.complex64)
        maps = _mix(unwhitening[:, None], maps)
    maps = _unit(maps, axis=2, xp=xp)
    if maps.shape[1] == 2:
        low, high = _SECOND_SET_EIGENVALUES
        weight = xp.clip((values[:, 1] - low) / (high - low), 0, 1) * folds[:, None, None]
        maps[:, 1] *= weight[:, None]
    return maps


def _kernels(block: Any, kernel: int, noise: float, xp: Any) -> Any:
    """Kernels (slice, coil, k, k, n) spanning the signal's part of the calibration matrix.

    A slice that has fewer than others has kernels of zero for the rest.
    """
    slices, coils = block.shape[:2]
    windows = xp.lib.stride_tricks.sliding_window_view(block, (kernel, kernel), axis=(2, 3))
    # One column a position of the window: (slice, coil * k * k, positions).
    matrix = windows.transpose(0, 1, 4, 5, 2, 3).reshape(slices, coils * kernel**2, -1)
    tall = matrix.shape[1] > matrix.shape[2]
    adjoint = matrix.conj().swapaxes(1, 2)
    gram = adjoint @ matrix if tall else matrix @ adjoint
    # slice by slice: of a stack CuPy takes Jacobi's method, which is for small matrices
    values, vectors = map(xp.stack, zip(*(xp.linalg.eigh(one) for one in gram), strict=True))
    singular = xp.sqrt(xp.maximum(values, 0))
    largest = singular[:, -1:]
    # Largest singular value of a matrix of independent noise (Marchenko and Pastur).
    floor = noise * np.sqrt(2) * sum(np.sqrt(n) for n in matrix.shape[1:])
    kept = singular >= xp.maximum(_KEPT_SINGULAR_VALUES * largest, xp.minimum(floor, largest))
    kept &= singular > 0
    count = int(kept.sum(axis=1).max())  # the last ones: they come in ascending order
    weights = kept / xp.where(kept & tall, singular, 1)
    vectors = vectors[..., -count:] * weights[:, None, -count:].astype(xp.float32)
    if tall:
        vectors = matrix @ vectors
    return vectors.reshape(slices, coils, kernel, kernel, -1)


def _lag_matrices(kernels: Any, xp: Any) -> Any:
    """Autocorrelation of the kernels, (slice, 2k - 1, 2k - 1, coil, coil), lag 0 at index 0."""
    kernel = kernels.shape[2]
    coarse = xp.fft.ifft2(kernels, s=(2 * kernel - 1,) * 2, axes=(2, 3)).transpose(0, 2, 3, 1, 4)
    coarse = coarse * ((2 * kernel - 1) ** 2 / kernel)
    squared = coarse @ coarse.conj().swapaxes(-1, -2)
    return xp.fft.fft2(squared, axes=(1, 2), norm="forward").astype(xp.complex64)


def _eigenvectors(
    lags: Any, shape: tuple[int, int], sets: int, xp: Any, strides: tuple[int, int] = (1, 1)
) -> tuple[Any, Any]:
    """Leading eigenvectors (slice, set, coil, y, x) and their eigenvalues (slice, set, y, x).

    In chunks of slices or, where one is too large, of a slice's rows.
    """
    slices, width, coils = len(lags), lags.shape[1], lags.shape[-1]
    along_y, along_x = (
        _waves(n, width, xp)[::stride] for n, stride in zip(shape, strides, strict=True)
    )
    ny, nx = len(along_y), len(along_x)
    maps = xp.empty((slices, sets, coils, ny, nx), xp.complex64)
    values = xp.empty((slices, sets, ny, nx), xp.float32)
    rows = max(1, _CHUNK_BYTES["cpu" if xp is np else "cuda"] // (8 * nx * coils**2))
    for where, y in product(_spans(slices, max(1, rows // ny)), _spans(ny, rows)):
        chunk = along_y[y] @ lags[where].reshape(-1, width, width * coils**2)
        matrices = along_x @ chunk.reshape(-1, width, coils**2)
        matrices = matrices.reshape(-1, coils, coils)
        for i in range(sets):
            vectors, lengths = _leading(matrices, xp)
            grid = maps[where, 0, 0, y].shape
            maps[where, i, :, y] = xp.moveaxis(vectors.reshape(*grid, coils), -1, 1)
            values[where, i, y] = lengths.reshape(grid)
            if i + 1 < sets:
                # (1 - v v^H) A (1 - v v^H)
                pair = matrices @ vectors - vectors * (lengths / 2)[:, None, None]
                pair = xp.concatenate([vectors, pair], axis=-1)
                matrices -= pair @ pair[..., ::-1].conj().swapaxes(-1, -2)
    return maps, values


def _leading(matrices: Any, xp: Any) -> tuple[Any, Any]:
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
    for i in range(_ROUNDS):
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
        off = (xp.abs(image - found * value[:, None, None]) ** 2).sum(axis=(1, 2)) > _RESIDUAL**2
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


def _strides(shape: tuple[int, int]) -> tuple[int, int]:
    """Those that leave about 48 pixels per axis."""
    return max(1, shape[0] // _GRID), max(1, shape[1] // _GRID)


def _object_signal(block: Any, shape: tuple[int, int], xp: Any) -> Any:
    """Signal (slice, y, x) of a calibration block at every n-th pixel; zero in the background."""
    to_y, to_x = (
        xp.exp(2j * np.pi / n * (xp.arange(0, n, stride) - n // 2)[:, None] * xp.arange(width))
        for n, stride, width in zip(shape, _strides(shape), block.shape[-2:], strict=True)
    )
    signal = xp.sqrt((xp.abs(to_y @ block @ to_x.T) ** 2).sum(axis=1))
    signal = xp.minimum(signal / xp.percentile(signal, 99, axis=(1, 2), keepdims=True), 1)
    return signal * (signal > _OBJECT)


def _virtual_coil(maps: Any, block: Any, signal: Any, xp: Any) -> Any:
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

    stride_y, stride_x = _strides(maps.shape[-2:])
    maps = maps[..., ::stride_y, ::stride_x].reshape(*maps.shape[:2], -1)
    weights = signal.reshape(len(maps), -1)
    for _ in range(_VIRTUAL_COIL_STEPS):
        seen = (virtual.conj()[:, None] @ maps)[:, 0]
        pull = weights * seen.conj() / (xp.abs(seen) ** 2 + 0.01) ** 2
        step = (maps @ pull[..., None])[..., 0]
        virtual = virtual + 0.5 * step / xp.linalg.norm(step, axis=1, keepdims=True)
        virtual = virtual / xp.linalg.norm(virtual, axis=1, keepdims=True)
    return virtual.astype(xp.complex64)


def _turned(maps: Any, values: Any, virtual_coil: Any, xp: Any) -> Any:
    """Two sets turned within the space that they span, so that they change smoothly in space.

    Where both eigenvalues are near 1, which combinations are the eigenvectors is a matter of the
    noise and jumps from pixel to pixel, and so would both images.  There set 0 becomes what of
    the virtual coil lies in the space; where the second eigenvalue is less it hardly turns.
    """
    parts = (maps.conj() * virtual_coil[:, None, :, None, None]).sum(axis=2)
    ratio = xp.maximum(values[:, 1], 0) / xp.maximum(values[:, 0], 1e-6)
    parts[:, 1] *= ratio**_ALIKE
    length = xp.sqrt((xp.abs(parts) ** 2).sum(axis=1))
    a, b = xp.moveaxis(parts / xp.maximum(length, 1e-6)[:, None], 1, 0)[:, :, None]
    return xp.stack(
        [maps[:, 0] * a + maps[:, 1] * b, maps[:, 1] * a.conj() - maps[:, 0] * b.conj()], axis=1
    )


def _referenced(maps: Any, virtual_coil: Any, xp: Any) -> Any:
    """Maps (slice, set, coil, y, x) whose phase makes the virtual coil real and positive."""
    seen = (maps * virtual_coil.conj()[:, None, :, None, None]).sum(axis=2, keepdims=True)
    return maps * xp.exp(-1j * xp.angle(seen))


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
