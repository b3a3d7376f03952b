"""Noise of the receive coils: its covariance, and the whitening that makes it unit noise.

A covariance is E[n n^H] of the complex noise, so independent coils of standard deviation sigma
per real component have 2 sigma^2 on the diagonal.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.noise.samples import noise_samples
from scoremri_core.mri.sampling import measured as sampled

_PLENTY = 100  # samples per coil: chance changes eigenvalues by less than a fifth
_FOLDS = 5
_EIGENVALUE_FLOOR = 1e-6  # of the largest: a direction below it is whitened as if it stood there


def covariance_from_scan(
    samples: ArrayLike, dwell_ratio: float = 1.0, bandwidth: float = 1.0
) -> NDArray[np.complex128]:
    """Noise covariance that the imaging data have, from a noise scan.

    The variance of white noise is inversely proportional to the dwell time, and the receiver
    filter passes only `bandwidth` of the noise scan's band while the centre of the band, where
    the image lies, is unattenuated:

        cov(data) = cov(noise scan) * (noise dwell / data dwell) / bandwidth

    as in Gadgetron's NoiseAdjustGadget (its whitening matrix carries the factor
    sqrt(2 * data dwell / noise dwell * bandwidth), the 2 as in `whitening_matrix`). Unlike there,
    a noise scan of few samples gives a well-conditioned covariance, see `sample_covariance`.

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
    return sample_covariance(x) * factor


def covariance_from_edges(
    kspace: ArrayLike, averages: ArrayLike | None = None, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.complex128]:
    """Noise covariance from the imaging data alone.

    It is that of samples with next to no signal: the quietest of the edges of k-space and the
    background of the image (see `scoremri_core.mri.noise.samples`). A sample that is not finite in
    one coil counts as not measured.

    Parameters
    ----------
    kspace : (coil, y, x) complex
        Centred k-space, zeros where not sampled.
    averages : (y, x), optional
        How often each sample was averaged; None takes all for 1.
    mask : (y, x) bool, optional
        Which samples were measured; None takes those that are not zero in every coil.

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
    ksp = np.where(finite, ksp, 0)
    measured = finite & sampled(ksp, mask)
    coils = len(ksp)
    if measured.sum() < coils:
        raise InputError(
            f"The noise cannot be estimated from {measured.sum()} measured samples of {coils} "
            "coils: expected at least one per coil."
        )
    variance = np.where(measured, 1 / np.maximum(1.0 if averages is None else averages, 1e-9), 0)
    unit = float(np.abs(ksp).max()) or 1.0  # squares may leave the range of single precision
    samples = noise_samples((ksp / unit).astype(np.complex64), measured, variance)
    # Data without any noise still carry the rounding of single precision.
    rounding = np.finfo(np.float32).eps ** 2 * np.eye(coils)
    return unit**2 * (sample_covariance(samples) + rounding)


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


def sample_covariance(samples: ArrayLike) -> NDArray[np.complex128]:
    """Covariance E[n n^H] of samples of noise, well-conditioned if they are few.

    The eigenvalues of a plain sample covariance spread by chance: with two samples per coil from
    0.09 to 2.9 where all are 1, and whitening amplifies what seems free of noise. With less than
    100 samples per coil the eigenvectors are therefore those of four fifths of the samples, and the
    eigenvalues the variances of the other fifth along them, averaged over the five choices of that
    fifth. In the limit of many coils this is the best estimate with the eigenvectors of the samples
    (Lam, Ann Statist 44:928-953, 2016). Coils are scaled to equal variance first.

    Parameters
    ----------
    samples : (coil, n) complex
        Neighbouring samples may be correlated.

    Returns
    -------
    (coil, coil) complex128
    """
    x = np.asarray(samples, dtype=np.complex128)
    coils, n = x.shape
    if n >= _PLENTY * coils:
        return np.asarray(x @ x.conj().T / n)
    scale = np.sqrt(np.mean(np.abs(x) ** 2, axis=1))
    x = x / np.where(scale > 0, scale, 1)[:, None]
    total = np.zeros((coils, coils), np.complex128)
    for held in np.array_split(np.arange(n), min(_FOLDS, n)):
        others = np.delete(x, held, axis=1)
        vectors = np.linalg.eigh(others @ others.conj().T)[1]
        values = np.mean(np.abs(vectors.conj().T @ x[:, held]) ** 2, axis=1)
        total += vectors * values @ vectors.conj().T
    diagonal = np.diagonal(total).real
    scale = scale / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    return np.asarray(scale[:, None] * total * scale)


def noise_sigma(covariance: ArrayLike) -> float:
    """Standard deviation of each real component of the noise, root mean square over coils."""
    return float(np.sqrt(np.mean(np.real(np.diagonal(np.asarray(covariance)))) / 2))
