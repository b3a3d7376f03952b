"""Noise of the receive coils: its covariance, and the whitening that makes it unit noise.

A covariance is E[n n^H] of the complex noise, so independent coils of standard deviation sigma
per real component have 2 sigma^2 on the diagonal.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter1d

from scoremri_core.errors import InputError
from scoremri_core.mri.blas import one_thread

_SHRINKAGE = 0.25  # of an estimate from the data, towards independent coils
_FILTERED = 3.0  # sd at the rim of Nyquist's circle over that in the corners beyond it
_EIGENVALUE_FLOOR = 1e-6  # of the largest: a direction below it is whitened as if it stood there


@one_thread
def covariance_from_scan(
    samples: ArrayLike, dwell_ratio: float = 1.0, bandwidth: float = 1.0
) -> NDArray[np.complex128]:
    """Noise covariance that the imaging data have, from a noise scan.

    The variance of white noise is inversely proportional to the dwell time, and the receiver
    filter passes only `bandwidth` of the noise scan's band while the centre of the band, where
    the image lies, is unattenuated:

        cov(data) = cov(noise scan) * (noise dwell / data dwell) / bandwidth

    which is Gadgetron's NoiseAdjustGadget (its whitening matrix carries the factor
    sqrt(2 * data dwell / noise dwell * bandwidth), the 2 as in `whitening_matrix`).

    Parameters
    ----------
    samples : (coil, n) complex
        Samples of the noise scan, those of all its readouts joined.
    dwell_ratio : float
        Noise dwell time / imaging data's dwell time; 1 where either is unknown.
    bandwidth : float
        `acquisitionSystemInformation.relativeReceiverNoiseBandwidth` of the header.

    Returns
    -------
    (coil, coil) complex128

    Raises
    ------
    InputError
        Fewer samples than coils, non-finite samples, or factors that are not positive.
    """
    x = np.asarray(samples, dtype=np.complex128)
    if x.ndim != 2 or x.shape[1] < x.shape[0]:
        raise InputError(
            f"The noise scan has shape {x.shape}: expected (coil, sample), "
            "with at least as many samples as coils."
        )
    if not np.isfinite(x).all():
        raise InputError("The noise scan holds values that are not finite.")
    factor = dwell_ratio / bandwidth if bandwidth > 0 else np.nan
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(
            f"The noise scan's dwell-time ratio ({dwell_ratio}) and receiver bandwidth "
            f"({bandwidth}) must be positive numbers."
        )
    return _covariance(x) * factor


@one_thread
def covariance_from_edges(
    kspace: ArrayLike, averages: ArrayLike | None = None
) -> NDArray[np.complex128]:
    """Noise covariance from the imaging data alone, where object signal is weakest.

    Where the readout (last axis) is sampled without gaps, the lines farthest from DC are
    transformed along it and the quietest columns are kept: the edges of k-space crossed with the
    air beside the object, since sharp edges of an object reach the corners of k-space too. The
    very quietest 5 % of the columns are left out, as receiver filters roll off there; the 15 %
    above them are used. Otherwise (both axes undersampled) the samples farthest from DC are taken.

    Samples that are zero in every coil, or not finite in any, count as not measured.
    Correlations between coils are shrunk by a quarter: what leaks in of the object would look
    like perfectly correlated noise.

    Parameters
    ----------
    kspace : (coil, y, x) complex
        Centred k-space, zeros where not sampled.
    averages : (y, x), optional
        How often each sample was averaged; None takes all for 1.

    Returns
    -------
    (coil, coil) complex128, of the noise in a sample of averages 1

    Raises
    ------
    InputError
        Fewer measured samples than coils.
    """
    ksp = np.asarray(kspace)
    if ksp.ndim != 3:
        raise InputError(f"k-space has shape {ksp.shape}: expected (coil, y, x).")
    finite = np.isfinite(ksp).all(axis=0)
    ksp = np.where(finite, ksp, 0).astype(np.complex128)
    measured = np.any(ksp != 0, axis=0)
    coils = len(ksp)
    if measured.sum() < coils:
        raise InputError(
            f"The noise cannot be estimated from {measured.sum()} measured samples of {coils} "
            "coils: expected at least one per coil."
        )
    # of a sample averaged n times over that of one averaged once
    variance = np.where(measured, 1 / np.maximum(1.0 if averages is None else averages, 1e-9), 0)
    found = _quiet_columns(ksp, measured, variance)
    if found is None or found[0].shape[1] < 4 * coils:
        found = _far_samples(ksp, measured, variance)
    samples, mean_variance = found
    # Signal that leaks into the estimate is the same in all coils, up to a factor: taken for
    # noise it would leave the other directions nearly noise-free, and whitening blow them up.
    covariance = _covariance(samples) / mean_variance
    covariance += _SHRINKAGE * (np.diag(np.diag(covariance)) - covariance)
    # Data without any noise still carry the rounding of single precision.
    rounding = (np.finfo(np.float32).eps * np.abs(ksp).max()) ** 2
    return covariance + rounding * np.eye(coils)


@one_thread
def whitening_matrix(covariance: ArrayLike) -> NDArray[np.complex128]:
    """Matrix W with W cov W^H = 2 I: each real component of W n has standard deviation 1.

    W = sqrt(2) cov^(-1/2), the Hermitian root, which changes the coils least. Eigenvalues below
    1e-6 of the largest are raised to that, so that a dead or doubled channel is not blown up.

    Parameters
    ----------
    covariance : (coil, coil) complex, Hermitian

    Raises
    ------
    InputError
        Not square, not finite, not Hermitian, with negative eigenvalues, or zero.
    """
    cov = np.asarray(covariance, dtype=np.complex128)
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or cov.size == 0:
        raise InputError(f"The noise covariance has shape {cov.shape}: expected (coil, coil).")
    if not np.isfinite(cov).all():
        raise InputError("The noise covariance holds values that are not finite.")
    if np.abs(cov - cov.conj().T).max() > 1e-4 * np.abs(cov).max():
        raise InputError("The noise covariance is not Hermitian.")
    values, vectors = np.linalg.eigh((cov + cov.conj().T) / 2)
    if values[-1] <= 0 or values[0] < -1e-4 * values[-1]:
        raise InputError("The noise covariance is not positive: it has no positive variance in it.")
    values = np.maximum(values, _EIGENVALUE_FLOOR * values[-1])
    return np.sqrt(2) * (vectors / np.sqrt(values)) @ vectors.conj().T


@one_thread
def whiten(kspace: ArrayLike, whitening: ArrayLike) -> NDArray[np.complex64]:
    """Mix the coils of k-space (..., coil, y, x) with a matrix (coil, coil)."""
    ksp = np.asarray(kspace, dtype=np.complex64)
    matrix = np.asarray(whitening)
    if ksp.ndim < 3 or matrix.shape != (ksp.shape[-3], ksp.shape[-3]):
        raise InputError(
            f"A whitening matrix of shape {matrix.shape} does not fit "
            f"k-space of shape {ksp.shape}: expected (..., coil, y, x)."
        )
    flat = ksp.reshape(*ksp.shape[:-2], -1)
    return (matrix.astype(np.complex64) @ flat).reshape(ksp.shape)


def noise_sigma(covariance: ArrayLike) -> float:
    """Standard deviation of each real component of the noise, root mean square over coils."""
    return float(np.sqrt(np.mean(np.real(np.diagonal(np.asarray(covariance)))) / 2))


def _covariance(samples: NDArray[np.complex128]) -> NDArray[np.complex128]:
    return samples @ samples.conj().T / samples.shape[1]


def _quiet_columns(
    ksp: NDArray[np.complex128], measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], float] | None:
    """Noise samples (coil, n) of (far line, quiet column), None where readouts have gaps.

    With the mean of `variance`, which is zero where nothing was measured, over what they are of.
    """
    ny, nx = measured.shape
    count = measured.sum(axis=1)
    whole = np.flatnonzero(count >= max(0.9 * count.max(), nx / 2))
    distance = np.abs(whole - ny // 2)
    first = measured[whole].argmax(axis=1)
    last = nx - measured[whole, ::-1].argmax(axis=1)
    gap_free = last - first == count[whole]
    if gap_free.sum() < 8 or gap_free.mean() < 0.9:
        return None
    whole, distance = whole[gap_free], distance[gap_free]
    far = whole[np.argsort(-distance, kind="stable")[: max(12, len(whole) // 4)]]
    # A readout measured over part of the matrix spreads that part's noise over all columns.
    scale = np.sqrt(nx / count[far])
    shifted = np.fft.ifftshift(ksp[:, far], axes=-1)
    hybrid = np.fft.ifft(shifted, norm="ortho") * scale[:, None]
    # Smoothed over neighbours, or the columns that chance made quiet would be picked.
    power = uniform_filter1d(np.mean(np.abs(hybrid) ** 2, axis=(0, 1)), 9, mode="wrap")
    order = np.argsort(power, kind="stable")[int(0.05 * nx) : max(int(0.2 * nx), 1)]
    mean = float(variance[far].sum() / count[far].sum())
    return hybrid[:, :, order].reshape(len(ksp), -1), mean


def _far_samples(
    ksp: NDArray[np.complex128], measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], float]:
    """The measured samples (coil, n) farthest from DC: 2 % of them, at least 256 or 16 per coil.

    With the mean of their `variance`.

    The corners beyond Nyquist's circle are left out where they are far quieter than its rim: an
    image that a vendor filtered or interpolated has no noise there.
    """
    ny, nx = measured.shape
    y = (np.arange(ny) - ny // 2) / (ny / 2)
    x = (np.arange(nx) - nx // 2) / (nx / 2)
    radius = np.hypot(y[:, None], x)[measured]
    n = max(int(0.02 * radius.size), 256, 16 * len(ksp))
    samples, variances = ksp[:, measured], variance[measured]
    within = np.where(radius <= 1, radius, 0)
    far, rim = (np.argsort(-distance, kind="stable")[:n] for distance in (radius, within))
    power = np.mean(np.abs(samples) ** 2, axis=0)
    chosen = rim if np.mean(power[rim]) > _FILTERED**2 * np.mean(power[far]) else far
    return samples[:, chosen], float(variances[chosen].mean())
