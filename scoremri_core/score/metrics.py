"""Image quality and calibration against a reference.

Images are compared by magnitude; complex posteriors by complex difference unless stated otherwise.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t
from skimage.metrics import structural_similarity

from scoremri_core.errors import InputError

HEAD = 0.05  # of the reference's maximum; less is background

_Floats = NDArray[np.float64]


def head_mask(reference: ArrayLike) -> NDArray[np.bool_]:
    """Return the mask of pixels with at least 5 % of the maximum magnitude.

    Parameters
    ----------
    reference : real or complex array, (y, x)

    Returns
    -------
    bool array, (y, x)
    """
    magnitude = np.abs(reference)
    mask: NDArray[np.bool_] = magnitude >= HEAD * magnitude.max()
    return mask


def psnr(image: ArrayLike, reference: ArrayLike, masked: bool = False) -> float:
    """Return the peak signal-to-noise ratio of magnitudes in dB.

    Parameters
    ----------
    image, reference : real or complex array, (y, x)
        The peak is the maximum of the reference.
    masked : bool, optional
        Set both to zero where the reference is below 5 % of its maximum. The mean is over all
        pixels, as in Jalal et al. 2021.

    Returns
    -------
    float
    """
    magnitude, truth = _magnitudes(image, reference, masked)
    error = np.mean((magnitude - truth) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(truth.max() ** 2 / error))


def ssim(image: ArrayLike, reference: ArrayLike, masked: bool = False) -> float:
    """Return the structural similarity of magnitudes.

    Parameters
    ----------
    image : array, (y, x)
    reference : array, (y, x)
    masked : bool, optional
        See `psnr`.

    Returns
    -------
    float
        Of 7 x 7 windows, with a data range from 0 to the reference's maximum.

    References
    ----------
    .. [1] Wang Z et al. Image quality assessment. IEEE TIP 13:600-612 (2004).
    """
    magnitude, truth = _magnitudes(image, reference, masked)
    return float(structural_similarity(truth, magnitude, data_range=truth.max() or 1.0))


def reference_noise_variance(noise_covariance: ArrayLike, maps: ArrayLike) -> _Floats:
    """Return the variance E|e|^2 of the complex noise of an MVUE.

    The MVUE S^H y(r) / |S|^2 of coil images with noise covariance N has the variance
    S^H N S / |S|^4.

    Parameters
    ----------
    noise_covariance : complex array, (coil, coil)
        E[n n^H].
    maps : complex array, (coil, y, x)

    Returns
    -------
    float64 array, (y, x)
        Zero where the maps are zero.
    """
    covariance, mps = np.asarray(noise_covariance), np.asarray(maps)
    power = np.sum(np.abs(mps) ** 2, axis=0)
    projected = np.sum(mps.conj() * np.tensordot(covariance, mps, axes=1), axis=0).real
    variance: _Floats = projected / np.where(power > 0, power, 1) ** 2
    return variance


def sd_to_error(
    std: ArrayLike,
    samples: float,
    mean: ArrayLike,
    reference: ArrayLike,
    reference_noise_variance: ArrayLike = 0.0,
    magnitude: bool = False,
) -> float:
    """Return the root-mean-square posterior sd over the root-mean-square error.

    1 for a calibrated posterior: the mean of S samples has 1/S of the posterior variance, so that
    E|mean - truth|^2 = (1 + 1/S) sd^2. The noise of the reference is subtracted from the error. See
    docs/methods.md, Eq. (20), where S is E.

    Parameters
    ----------
    std : real array, (y, x)
        Posterior sd of the complex value, or of the magnitude if `magnitude`.
    samples : float
        Effective number S of samples of the mean (`Info.effective_samples`).
    mean, reference : complex array, (y, x)
        If `magnitude`, the mean of the magnitudes of the samples.
    reference_noise_variance : float or real array, (y, x), optional
        E|n|^2 of the reference's complex noise, less 2 E Re(e n^*) if the mean's error e shares
        part of that noise.
    magnitude : bool, optional
        Compare magnitudes over the head, where their noise is one real component with half the
        complex variance; otherwise complex values over all pixels.

    Returns
    -------
    float
        Infinite if the noise of the reference explains the error.
    """
    sd, truth = np.asarray(std, np.float64), np.asarray(reference)
    noise = np.broadcast_to(np.asarray(reference_noise_variance, np.float64), truth.shape)
    if magnitude:
        mask = head_mask(truth)
        error = np.mean((np.abs(mean) - np.abs(truth))[mask] ** 2) - np.mean(noise[mask]) / 2
        variance = np.mean(sd[mask] ** 2)
    else:
        error = np.mean(np.abs(mean - truth) ** 2) - np.mean(noise)
        variance = np.mean(sd**2)
    return float(np.sqrt((1 + 1 / samples) * variance / error)) if error > 0 else float("inf")


def coverage(
    sd: ArrayLike,
    samples: int,
    effective_samples: float,
    mean: ArrayLike,
    reference: ArrayLike,
    reference_noise_variance: ArrayLike = 0.0,
    level: float = 0.9,
) -> float:
    """Return the fraction of the object's pixels whose magnitude lies in a central interval.

    The interval is |mean| +- t (v (1 + 1/E) + n / 2)^(1/2), with v the variance of the samples'
    magnitudes, n that of the reference's complex noise and Student's t of S - 1 degrees of freedom
    (of more where noise of known variance is added, Welch-Satterthwaite). See docs/methods.md, Eq.
    (21).

    Parameters
    ----------
    sd : real, (y, x)
        Sample standard deviation of the magnitude.
    samples : int
        Number S of samples.
    effective_samples : float
        E, as in `Info`; S for independent samples.
    mean, reference : complex or real, (y, x)
    reference_noise_variance : float or real (y, x)
        E|n|^2 of the reference's noise.
    level : float
        Probability of the interval.

    Returns
    -------
    float
        NaN if the sd or the noise is not finite.
    """
    truth = np.asarray(reference)
    mask = head_mask(truth)
    noise = np.broadcast_to(np.asarray(reference_noise_variance, np.float64), truth.shape)[mask] / 2
    sampled = (1 + 1 / effective_samples) * np.asarray(sd, np.float64)[mask] ** 2
    total = np.maximum(sampled + noise, 0)
    if not np.isfinite(total).all():
        return float("nan")
    freedom = (samples - 1) * np.maximum(total / np.where(sampled > 0, sampled, 1), 1) ** 2
    half_width = student_t.ppf((1 + level) / 2, freedom) * np.sqrt(total)
    return float(np.mean(np.abs(np.abs(mean) - np.abs(truth))[mask] <= half_width))


def crps(samples: ArrayLike, reference: ArrayLike, effective_samples: float | None = None) -> float:
    """Return the mean continuous ranked probability score of magnitudes over the object.

    Parameters
    ----------
    samples : complex or real, (sample, y, x)
        At least two.
    reference : complex or real, (y, x)
    effective_samples : float, optional
        As in `Info`; by default the samples are independent.

    Returns
    -------
    float
        In image units.
    """
    mask = head_mask(reference)
    return crps_of_values(
        np.abs(samples)[:, mask].astype(np.float64), np.abs(reference)[mask], effective_samples
    )


def crps_of_values(
    samples: ArrayLike, truth: ArrayLike, effective_samples: float | None = None
) -> float:
    """Return the mean continuous ranked probability score of real values.

    E|x - truth| - E|x - x'| / 2 with the unbiased estimate over pairs [1]_ (docs/methods.md, Eq.
    (22)).

    Parameters
    ----------
    samples : real array, (sample, ...)
        At least two.
    truth : real array, (...)
    effective_samples : float, optional
        As in `Info`; by default the samples are independent.

    Returns
    -------
    float

    References
    ----------
    .. [1] Gneiting T, Raftery AE. Strictly proper scoring rules. JASA 102:359-378 (2007).
    """
    ordered = np.sort(samples, axis=0)
    n = len(ordered)
    # sum of |x_i - x_j| over pairs i < j, from the order statistics
    spread = np.tensordot(2 * np.arange(n) - n + 1, ordered, axes=1) / (n * (n - 1))
    # balanced samples are further apart than independent ones
    spread *= np.sqrt((n - 1) / (n - n / (effective_samples or n)))
    return float(np.mean(np.mean(np.abs(ordered - truth), axis=0) - spread))


def _magnitudes(image: ArrayLike, reference: ArrayLike, masked: bool) -> tuple[_Floats, _Floats]:
    magnitude, truth = (np.abs(a).astype(np.float64) for a in (image, reference))
    if magnitude.shape != truth.shape:
        raise InputError(f"image has shape {magnitude.shape}, its reference {truth.shape}")
    if masked:
        mask = head_mask(truth)
        magnitude, truth = magnitude * mask, truth * mask
    return magnitude, truth
