"""How close a reconstruction is to its reference, and how honest its uncertainty.

Images are compared by magnitude, as radiologists and the literature do; errors of a complex
posterior by complex difference, unless said otherwise.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t
from skimage.metrics import structural_similarity

from scoremri_core.errors import InputError

HEAD = 0.05  # of the reference's maximum: below it is background

_Floats = NDArray[np.float64]


def head_mask(reference: ArrayLike) -> NDArray[np.bool_]:
    """Pixels of the reference with at least 5 % of its maximum magnitude."""
    magnitude = np.abs(reference)
    mask: NDArray[np.bool_] = magnitude >= HEAD * magnitude.max()
    return mask


def psnr(image: ArrayLike, reference: ArrayLike, masked: bool = False) -> float:
    """Peak signal-to-noise ratio of magnitudes in dB; the peak is the reference's maximum.

    Parameters
    ----------
    image, reference : (y, x) real or complex
    masked : set both to zero where the reference is under 5 % of its maximum (the mean stays
        over all pixels, as in Jalal et al. 2021).
    """
    found, truth = _magnitudes(image, reference, masked)
    error = np.mean((found - truth) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(truth.max() ** 2 / error))


def ssim(image: ArrayLike, reference: ArrayLike, masked: bool = False) -> float:
    """Structural similarity of magnitudes (Wang et al. 2004, 7 x 7 windows, range 0 to maximum).

    Parameters are those of `psnr`.
    """
    found, truth = _magnitudes(image, reference, masked)
    return float(structural_similarity(truth, found, data_range=truth.max() or 1.0))


def reference_noise_variance(noise_covariance: ArrayLike, maps: ArrayLike) -> _Floats:
    """Variance E|e|^2 of the complex noise of an MVUE, pixel by pixel.

    The MVUE is S^H y(r) / |S|^2 with noise of the covariance N in the coils of every pixel, so
    its variance is S^H N S / |S|^4.

    Parameters
    ----------
    noise_covariance : (coil, coil), E[n n^H]
    maps : (coil, y, x)

    Returns
    -------
    (y, x) float64, zero where the maps are
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
    """Root-mean-square posterior sd over root-mean-square error: 1 where it tells the truth.

    The mean of S samples strays from the posterior's by 1/S of its variance, so that
    E|mean - truth|^2 = (1 + 1/S) sd^2; the reference's own noise is taken off the squared error.

    Parameters
    ----------
    std : (y, x), posterior sd: of the complex value, or of the magnitude (`magnitude`)
    samples : number S of samples behind the mean: the effective one (`Info.effective_samples`)
    mean, reference : (y, x) complex; for magnitudes, the mean of the samples' magnitudes
    reference_noise_variance : of the reference's complex noise, E|n|^2, a number or (y, x); where
        the mean has part of that noise too, less 2 E Re(e n^*) with e the mean's error
    magnitude : compare magnitudes, over the head alone (where a magnitude's noise is one real
        component, of half the complex variance); otherwise complex values over all pixels.

    Returns
    -------
    The ratio; infinite where the error is all the reference's noise.
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
    """Fraction of the object's pixels whose magnitude lies within a central interval.

    The interval is |mean| +- t (v (1 + 1/E) + n / 2)^(1/2), with v the variance of the samples'
    magnitudes, n that of the reference's complex noise and Student's t of S - 1 degrees of freedom
    (of more where noise of known variance is added, Welch-Satterthwaite).

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
    reach = student_t.ppf((1 + level) / 2, freedom) * np.sqrt(total)
    return float(np.mean(np.abs(np.abs(mean) - np.abs(truth))[mask] <= reach))


def crps(samples: ArrayLike, reference: ArrayLike, effective_samples: float | None = None) -> float:
    """Continuous ranked probability score of magnitudes, mean over the object, in image units.

    Parameters
    ----------
    samples : complex or real, (sample, y, x)
        At least two.
    reference : complex or real, (y, x)
    effective_samples : float, optional
        As in `Info`; by default the samples are independent.
    """
    mask = head_mask(reference)
    return crps_of_values(
        np.abs(samples)[:, mask].astype(np.float64), np.abs(reference)[mask], effective_samples
    )


def crps_of_values(
    samples: ArrayLike, truth: ArrayLike, effective_samples: float | None = None
) -> float:
    """Continuous ranked probability score of real values, their mean.

    E|x - truth| - E|x - x'| / 2 with the unbiased estimate over pairs (Gneiting & Raftery,
    JASA 102:359-378, 2007): the absolute error of a single value, less for an honest spread.

    Parameters
    ----------
    samples : real, (sample, ...)
        At least two.
    truth : real, (...)
    effective_samples : float, optional
        As in `Info`; by default the samples are independent.
    """
    found = np.sort(samples, axis=0)
    n = len(found)
    # sum of |x_i - x_j| over pairs i < j, from the order statistics
    spread = np.tensordot(2 * np.arange(n) - n + 1, found, axes=1) / (n * (n - 1))
    # balanced samples lie further apart than independent ones
    spread *= np.sqrt((n - 1) / (n - n / (effective_samples or n)))
    return float(np.mean(np.mean(np.abs(found - truth), axis=0) - spread))


def _magnitudes(image: ArrayLike, reference: ArrayLike, masked: bool) -> tuple[_Floats, _Floats]:
    found, truth = (np.abs(a).astype(np.float64) for a in (image, reference))
    if found.shape != truth.shape:
        raise InputError(f"An image of shape {found.shape} has a reference of {truth.shape}.")
    if masked:
        mask = head_mask(truth)
        found, truth = found * mask, truth * mask
    return found, truth
