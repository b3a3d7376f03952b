"""Noise amplification of SENSE."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core.errors import InputError
from scoremri_core.mri.noise.covariance import whiten, whitening_matrix
from scoremri_core.mri.sense import SenseOperator

RIDGE = 1e-7  # of the largest sum |S|^2: bounds g where the coils cannot separate the aliases
REPLICAS, ITERATIONS, TOLERANCE = 64, 60, 1e-3  # of the pseudo-replica method
COLUMNS = 2**22  # matrix elements at once


def g_factor(
    maps: ArrayLike,
    mask: ArrayLike,
    noise_covariance: ArrayLike | None = None,
    averages: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Compute the g-factor of SENSE, sd_accelerated / (sd_full sqrt(R)).

    With A the `SenseOperator` of whitened data, the noise covariance of SENSE is (A^H A)^-1. If
    whole lines are measured, it is inverted exactly, one column of the image at a time; otherwise
    its diagonal is the variance over 64 noise replicas, with a standard error of 6 %.

    Parameters
    ----------
    maps : complex array, (coil, y, x) or (set, coil, y, x)
    mask : bool array, (y, x)
        Measured samples.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H]. Default: identity.
    averages : array, (y, x), optional
        Number of averages of each sample. Default: 1.

    Returns
    -------
    float32 array, (y, x), or (set, y, x) for maps with sets
        R is the number of samples of the full matrix over that of the measured ones, calibration
        lines included. Zero where the maps are zero.

    Raises
    ------
    InputError
        Shapes do not match, or there are no measured samples.

    References
    ----------
    .. [1] Pruessmann KP et al. SENSE: sensitivity encoding for fast MRI. Magn Reson Med 42:952-962
       (1999).
    .. [2] Robson PM et al. Comprehensive quantification of signal-to-noise ratio and g-factor for
       image-based and k-space-based parallel imaging reconstructions. Magn Reson Med 60:895-907
       (2008).
    """
    mps, measured = np.asarray(maps, np.complex64), np.asarray(mask, bool)
    if mps.ndim not in (3, 4) or mps.shape[-2:] != measured.shape or not measured.any():
        raise InputError(
            f"maps has shape {mps.shape} and mask {measured.shape}, {measured.sum()} measured: "
            "expected (coil, y, x) or (set, coil, y, x), and (y, x)"
        )
    sets = mps.reshape(-1, *mps.shape[-3:])
    if noise_covariance is not None:
        sets = whiten(sets, whitening_matrix(np.asarray(noise_covariance)))
    sets = sets / (np.sqrt(np.max(np.sum(np.abs(sets) ** 2, (0, 1)))) or 1)
    weight = measured * np.asarray(1 if averages is None else averages, np.float32)
    if (weight == weight[:, :1]).all():
        variance = _of_lines(sets, weight[:, 0])
    elif (weight == weight[:1]).all():
        variance = _of_lines(sets.swapaxes(-1, -2), weight[0]).swapaxes(-1, -2)
    else:
        variance = _of_replicas(sets, measured, weight)
    gram = np.einsum("scyx,tcyx->yxst", sets.conj(), sets)
    gram += RIDGE * np.eye(len(sets), dtype=gram.dtype)
    full = np.moveaxis(np.linalg.inv(gram).diagonal(axis1=-2, axis2=-1).real, -1, 0)
    support = np.any(sets != 0, axis=1)
    squared = np.where(support, variance / full * weight.mean(), 0)
    g: NDArray[np.float32] = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
    return g if mps.ndim == 4 else g[0]


def _of_lines(maps: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Diagonal of (A^H A)^-1, (set, y, x), of lines with weights (y,)."""
    sets, coils, ny, nx = maps.shape
    lags = np.fft.ifft(np.fft.ifftshift(weight))  # of F^H P F
    y = np.arange(ny)
    toeplitz = torch.from_numpy(lags[(y[:, None] - y) % ny]).repeat(sets, sets)
    columns = torch.from_numpy(np.ascontiguousarray(np.moveaxis(maps, (3, 1), (0, 1))))
    columns = columns.reshape(nx, coils, sets * ny)
    ridge = RIDGE * torch.eye(sets * ny, dtype=torch.float64)
    step = max(1, COLUMNS // (sets * ny) ** 2)
    variance = []
    for some in columns.split(step):
        normal = (some.mH @ some) * toeplitz + ridge  # double precision: ill-conditioned
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(normal))
        variance.append(inverse.diagonal(dim1=-2, dim2=-1).real)
    return np.moveaxis(torch.cat(variance).reshape(nx, sets, ny).numpy(), 0, -1)


def _of_replicas(maps: NDArray[Any], mask: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Diagonal of (A^H A)^-1, (set, y, x), as the variance of noise through SENSE."""
    operator = SenseOperator(
        torch.from_numpy(np.ascontiguousarray(maps))[None],
        torch.from_numpy(mask)[None],
        torch.from_numpy(weight)[None],
    )
    random = torch.Generator().manual_seed(0)
    shape = 1, REPLICAS, maps.shape[1], *mask.shape
    noise = torch.randn(*shape, dtype=torch.complex64, generator=random)
    right = operator.adjoint(noise)

    def normal(values: NDArray[Any]) -> Any:
        image = torch.from_numpy(values.astype(np.complex64)).reshape(right.shape)
        return (operator.normal(image) + RIDGE * image).numpy().ravel()

    system = LinearOperator((right.numel(),) * 2, normal, dtype=np.complex64)
    solution, _ = cg(system, right.numpy().ravel(), rtol=TOLERANCE, maxiter=ITERATIONS)
    return np.asarray(np.mean(np.abs(solution.reshape(right.shape)[0]) ** 2, 0))
