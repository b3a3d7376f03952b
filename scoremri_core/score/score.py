"""Scores of images and posterior samples, for every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.score.metrics import coverage, crps, head_mask, psnr, sd_to_error, ssim

Image = NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """The result of a method.

    Attributes
    ----------
    image : complex or real array, (y, x)
    samples : complex array, (sample, y, x), or None
        Posterior samples, if the method draws samples.
    effective_samples : float or None
        Number of independent samples whose mean has the same variance (`Info.effective_samples`);
        None if the samples are independent.
    evaluations : int or None
        Network evaluations per sample.
    note : str
        A setting, or the reason of a fallback.
    """

    image: Image
    samples: Image | None = None
    effective_samples: float | None = None
    evaluations: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Reference:
    """The reference of a score.

    Attributes
    ----------
    image : complex or real array, (y, x)
    aligned : complex or real array, (y, x), or None
        Reference of the samples: in the phase of the answer, or an MVUE with the answer's coil
        maps. None takes `image`, by magnitude only.
    noise : float or real array, (y, x)
        E|n|^2 of the complex noise n of the reference, less 2 E Re(e n^*) if the answer's error e
        shares part of that noise.
    """

    image: Image
    aligned: Image | None = None
    noise: float | NDArray[np.float64] = 0.0


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Scores of posterior samples; None without samples.

    Attributes
    ----------
    sd_to_error : float or None
        RMS posterior sd of the magnitude over RMS error of the magnitude, in the object. The
        reference's noise is subtracted from the error.
    complex_sd_to_error : float or None
        RMS posterior sd of the complex value over RMS error of the complex value, where the
        reference has the answer's phase.
    coverage_50, coverage_90 : float or None
        Fraction of the object's pixels whose magnitude lies within the central 50 or 90 % interval
        of the samples, which the noise of the reference widens.
    crps : float or None
        Continuous ranked probability score of magnitudes in the object over the reference's
        maximum.
    """

    sd_to_error: float | None = None
    complex_sd_to_error: float | None = None
    coverage_50: float | None = None
    coverage_90: float | None = None
    crps: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score(Uncertainty):
    """Scores of a reconstruction.

    Attributes
    ----------
    psnr, ssim : float
        Of the magnitude over the whole image.
    masked_psnr, masked_ssim : float
        With both images set to zero outside of the object.
    sd_to_error, complex_sd_to_error, coverage_50, coverage_90, crps : float or None
        See `Uncertainty`.
    """

    psnr: float
    ssim: float
    masked_psnr: float
    masked_ssim: float


def score(answer: Answer, reference: Reference) -> Score:
    """Score an answer against a reference.

    Parameters
    ----------
    answer : Answer
    reference : Reference

    Returns
    -------
    Score
    """
    truth = reference.image
    return Score(
        psnr=psnr(answer.image, truth),
        ssim=ssim(answer.image, truth),
        masked_psnr=psnr(answer.image, truth, masked=True),
        masked_ssim=ssim(answer.image, truth, masked=True),
        **vars(uncertainty(answer, reference)),
    )


def uncertainty(answer: Answer, reference: Reference) -> Uncertainty:
    """Score the samples of an answer against a reference.

    Parameters
    ----------
    answer : Answer
    reference : Reference

    Returns
    -------
    Uncertainty
        Empty for fewer than two samples, or samples that are not finite.
    """
    samples = answer.samples
    if samples is None or len(samples) < 2 or not np.isfinite(samples).all():
        return Uncertainty()
    truth = reference.image if reference.aligned is None else reference.aligned
    count = len(samples)
    effective = answer.effective_samples or float(count)
    mean = answer.image
    noise = np.broadcast_to(np.asarray(reference.noise, np.float64), truth.shape)
    # shared noise is estimated from a single probe: valid on average, not per pixel
    level = float(np.mean(noise[head_mask(truth)]))
    sd = np.abs(samples).std(0, ddof=count / effective)
    complex_ratio = None
    if reference.aligned is not None and np.iscomplexobj(truth):
        deviation = samples.std(0, ddof=count / effective)
        complex_ratio = sd_to_error(deviation, effective, mean, truth, noise)
    return Uncertainty(
        sd_to_error=sd_to_error(sd, effective, mean, truth, noise, magnitude=True),
        complex_sd_to_error=complex_ratio,
        coverage_50=coverage(sd, count, effective, mean, truth, level, 0.5) if count > 2 else None,
        coverage_90=coverage(sd, count, effective, mean, truth, level, 0.9),
        crps=crps(samples, truth, effective) / float(np.abs(truth).max()),
    )
