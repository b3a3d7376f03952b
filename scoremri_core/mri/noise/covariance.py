"""Noise covariance of the coils, and whitening.

A covariance is E[n n^H] of the complex noise: independent coils with standard deviation sigma of
each real component have 2 sigma^2 on the diagonal.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.noise.samples import noise_samples
from scoremri_core.mri.sampling import measured as sampled

MANY = 100  # samples per coil, from which eigenvalues are accurate to 20 %
FOLDS = 5  # of the cross-validation of eigenvalues
MIN_EIGENVALUE = 1e-6  # of the largest: floor of eigenvalues for whitening


def covariance_from_scan(
    samples: ArrayLike, dwell_ratio: float = 1.0, bandwidth: float = 1.0
) -> NDArray[np.complex128]:
    """Estimate the noise covariance of imaging data from a noise scan.

    The variance of white noise is inversely proportional to the dwell time, and the receiver
    filter passes a fraction `bandwidth` of the band of the noise scan, without attenuation in its
    centre:

        cov(data) = cov(noise scan) * (noise dwell / data dwell) / bandwidth

    (docs/methods.md, Eq. (14)). This is the scaling of Gadgetron's NoiseAdjustGadget, whose
    whitening matrix has the factor sqrt(2 * data dwell / noise dwell * bandwidth). In addition, a
    covariance of few samples is well conditioned (see `sample_covariance`).

    Parameters
    ----------
    samples : complex array, (coil, n)
        Samples of all readouts of the noise scan.
    dwell_ratio : float
        Dwell time of the noise scan over that of the data; 1 if unknown.
    bandwidth : float
        `acquisitionSystemInformation.relativeReceiverNoiseBandwidth` of the header.

    Returns
    -------
    complex128 array, (coil, coil)

    Raises
    ------
    InputError
        Fewer samples than coils, samples that are not finite, or factors that are not positive.
    """
    x = np.asarray(samples, dtype=np.complex128)
    if x.ndim != 2 or x.shape[1] < x.shape[0]:
        raise InputError(
            f"the noise scan has shape {x.shape}: expected (coil, sample), "
            "with at least as many samples as coils"
        )
    if not np.isfinite(x).all():
        raise InputError("the noise scan holds values that are not finite")
    factor = dwell_ratio / bandwidth if bandwidth > 0 else np.nan
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(
            f"the noise scan has dwell-time ratio {dwell_ratio} and relative receiver bandwidth "
            f"{bandwidth}: expected numbers above 0"
        )
    return sample_covariance(x) * factor


def covariance_from_edges(
    kspace: ArrayLike, averages: ArrayLike | None = None, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.complex128]:
    """Estimate the noise covariance from imaging data without a noise scan.

    Uses samples with little signal, at the edges of k-space or in the background of the image,
    whichever are quietest (see `scoremri_core.mri.noise.samples`).

    Parameters
    ----------
    kspace : complex array, (coil, y, x)
        Centred, zero where not sampled. Samples that are not finite are ignored.
    averages : array, (y, x), optional
        Number of averages of each sample. Default: 1.
    mask : bool array, (y, x), optional
        Measured samples. Default: those that are not zero in every coil.

    Returns
    -------
    complex128 array, (coil, coil)
        Of a sample with one average.

    Raises
    ------
    InputError
        Fewer measured samples than coils.
    """
    ksp = np.asarray(kspace)
    if ksp.ndim != 3:
        raise InputError(f"kspace has shape {ksp.shape}: expected (coil, y, x)")
    finite = np.isfinite(ksp).all(axis=0)
    ksp = np.where(finite, ksp, 0)
    measured = finite & sampled(ksp, mask)
    coils = len(ksp)
    if measured.sum() < coils:
        raise InputError(
            f"the noise of {coils} coils cannot be estimated from {measured.sum()} measured "
            "samples: expected at least one per coil"
        )
    variance = np.where(measured, 1 / np.maximum(1.0 if averages is None else averages, 1e-9), 0)
    unit = float(np.abs(ksp).max()) or 1.0  # keeps squares in the range of float32
    samples = noise_samples((ksp / unit).astype(np.complex64), measured, variance)
    # noise-free data have the rounding errors of float32
    rounding = np.finfo(np.float32).eps ** 2 * np.eye(coils)
    return unit**2 * (sample_covariance(samples) + rounding)


def whitening_matrix(covariance: ArrayLike) -> NDArray[np.complex128]:
    """Compute the whitening matrix W with W cov W^H = 2 I.

    Each real component of W n has standard deviation 1 (docs/methods.md, Eq. (13), as B). W =
    sqrt(2) cov^(-1/2) is the Hermitian root. Eigenvalues below 1e-6 of the largest are raised to
    that, so that dead or duplicated coils are not amplified.

    Parameters
    ----------
    covariance : complex array, (coil, coil)
        Hermitian.

    Returns
    -------
    complex128 array, (coil, coil)

    Raises
    ------
    InputError
        The covariance is not square, finite, Hermitian and positive semidefinite, or is zero.
    """
    cov = np.asarray(covariance, dtype=np.complex128)
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or cov.size == 0:
        raise InputError(f"the noise covariance has shape {cov.shape}: expected (coil, coil)")
    if not np.isfinite(cov).all():
        raise InputError("the noise covariance holds values that are not finite")
    if np.abs(cov - cov.conj().T).max() > 1e-4 * np.abs(cov).max():
        raise InputError("the noise covariance is not Hermitian")
    values, vectors = np.linalg.eigh((cov + cov.conj().T) / 2)
    if values[-1] <= 0 or values[0] < -1e-4 * values[-1]:
        raise InputError("the noise covariance is not positive semidefinite, or is zero")
    values = np.maximum(values, MIN_EIGENVALUE * values[-1])
    return np.sqrt(2) * (vectors / np.sqrt(values)) @ vectors.conj().T


def whiten(kspace: ArrayLike, whitening: ArrayLike) -> NDArray[np.complex64]:
    """Multiply the coils of k-space by a whitening matrix.

    Parameters
    ----------
    kspace : complex array, (..., coil, y, x)
    whitening : complex array, (coil, coil)

    Returns
    -------
    complex64 array, (..., coil, y, x)

    Raises
    ------
    InputError
        The shapes do not match.
    """
    ksp = np.asarray(kspace, dtype=np.complex64)
    matrix = np.asarray(whitening)
    if ksp.ndim < 3 or matrix.shape != (ksp.shape[-3], ksp.shape[-3]):
        raise InputError(
            f"whitening has shape {matrix.shape} and kspace {ksp.shape}: expected (coil, coil) and "
            "(..., coil, y, x)"
        )
    flat = ksp.reshape(*ksp.shape[:-2], -1)
    return (matrix.astype(np.complex64) @ flat).reshape(ksp.shape)


def sample_covariance(samples: ArrayLike) -> NDArray[np.complex128]:
    """Estimate the covariance E[n n^H] of noise samples, well conditioned for few samples.

    The eigenvalues of a sample covariance spread by chance, for two samples per coil of white noise
    from 0.09 to 2.9, and whitening would amplify the small ones. With fewer than 100 samples per
    coil, the estimate is cross-validated: eigenvectors of four fifths of the samples, with the
    variances of the last fifth along them, averaged over the five folds. For many coils this is the
    optimal estimate with the eigenvectors of the samples [1]_. Coils are first scaled to equal
    variance.

    Parameters
    ----------
    samples : complex array, (coil, n)
        Neighbouring samples may be correlated.

    Returns
    -------
    complex128 array, (coil, coil)

    References
    ----------
    .. [1] Lam C. Nonparametric eigenvalue-regularized precision or covariance matrix estimator.
       Ann Statist 44:928-953 (2016).
    """
    x = np.asarray(samples, dtype=np.complex128)
    coils, n = x.shape
    if n >= MANY * coils:
        return np.asarray(x @ x.conj().T / n)
    scale = np.sqrt(np.mean(np.abs(x) ** 2, axis=1))
    x = x / np.where(scale > 0, scale, 1)[:, None]
    total = np.zeros((coils, coils), np.complex128)
    for held in np.array_split(np.arange(n), min(FOLDS, n)):
        others = np.delete(x, held, axis=1)
        vectors = np.linalg.eigh(others @ others.conj().T)[1]
        values = np.mean(np.abs(vectors.conj().T @ x[:, held]) ** 2, axis=1)
        total += vectors * values @ vectors.conj().T
    diagonal = np.diagonal(total).real
    scale = scale / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    return np.asarray(scale[:, None] * total * scale)


def noise_sigma(covariance: ArrayLike) -> float:
    """Return the noise sd of each real component, root mean square over coils.

    Parameters
    ----------
    covariance : complex array, (coil, coil)

    Returns
    -------
    float
    """
    return float(np.sqrt(np.mean(np.real(np.diagonal(np.asarray(covariance)))) / 2))
