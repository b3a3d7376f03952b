"""Retrospective undersampling of a fully sampled slice: every method against one reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.mri.classical import mvue, root_sum_of_squares
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise.covariance import covariance_from_edges, whiten, whitening_matrix
from scoremri_core.mri.sampling import measured
from scoremri_core.score.metrics import psnr, reference_noise_variance
from scoremri_core.score.score import Answer, Reference, Score, Uncertainty, score
from scoremri_core.simulation.retrospective import AXES, calibration_lines, kept_samples
from scoremri_core.studies.methods import FIXED_LAMBDA, POSTERIOR_MEAN
from scoremri_core.studies.methods.problem import Problem
from scoremri_core.studies.methods.registry import CLASSICAL, lambda_note

logger = logging.getLogger(__name__)

PROBE = 0.3  # sd of the noise that is added to find out what becomes of noise, in sd of the data's
METHODS = (*CLASSICAL, POSTERIOR_MEAN)
REFERENCES = ("MVUE", "root sum of squares")

Image = NDArray[np.complex64]


@dataclass(frozen=True, kw_only=True)
class RunMetrics(Uncertainty):
    """What is known of a reconstruction beside its image, of a slice or on average.

    Attributes
    ----------
    true_acceleration : float or None
        With the calibration lines counted.
    misfit, sigma_thermal, sigma_n : float or None
        Of the reconstruction's `Info`, the last two over its scale.
    seconds : float or None
        Of the reconstruction; coil maps are included for the posterior mean alone.
    """

    true_acceleration: float | None = None
    misfit: float | None = None
    sigma_thermal: float | None = None
    sigma_n: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class MethodScore(RunMetrics, Score):
    """One method on one undersampled slice.

    Attributes
    ----------
    method : str
        One of METHODS.
    slice : int
    acceleration : float
        R as asked for.
    reference : str
        One of REFERENCES.
    note : str
        The lambda that was chosen, or why there are no samples.
    psnr_fixed_lambda : float or None
        Of L1-wavelet with FIXED_LAMBDA.
    """

    method: str
    slice: int
    acceleration: float
    reference: str = REFERENCES[0]
    note: str = ""
    psnr_fixed_lambda: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Images (y, x) of one undersampled slice.

    Attributes
    ----------
    reference : of the full data.
    images : by method.
    std, error : posterior sd and error of the magnitude.
    """

    reference: Image
    images: Mapping[str, Image]
    std: NDArray[np.float32]
    error: NDArray[np.float32]


class Evaluation:
    """Scores of every method on one fully sampled slice.

    Parameters
    ----------
    kspace : (coil, y, x) complex, fully sampled, centred; empty lines at the ends are allowed.
    index : of the slice, for the scores.
    calibration : number of calibration lines, or their share; the reference is the MVUE of the full
        data with coil maps from these.
    axis, true : see `kept_samples`.
    """

    def __init__(
        self,
        kspace: Image,
        index: int = 0,
        calibration: int | str = 24,
        axis: str = AXES[0],
        true: bool = False,
    ) -> None:
        self.kspace = kspace
        self.index = index
        self.calibration = calibration
        self.axis, self.true = axis, true
        self.noise = covariance_from_edges(kspace)
        block = calibration_lines(kspace.shape[1:], calibration, axis)
        self.reference = mvue(kspace, estimate_coil_maps(kspace * block)[0])

    @cached_property
    def root_sum_of_squares(self) -> Image:
        """Of the full data, (y, x), less the mean power of its noise.

        Noise only ever adds to a sum of squares: where there is no signal, an image without
        noise would be far from it, and a noisy one near.
        """
        power = root_sum_of_squares(self.kspace) ** 2
        received = measured(self.kspace).mean()
        less = np.maximum(power - np.trace(self.noise).real * received, 0)
        root: Image = np.sqrt(less).astype(np.complex64)
        return root

    @cached_property
    def coil_directions(self) -> Image:
        """The coil images over their root sum of squares: maps whose MVUE is that root."""
        images = to_image(self.kspace)
        norm = np.linalg.norm(images, axis=0)
        directions: Image = images / np.where(norm > 0, norm, 1)
        return directions

    def undersampled(self, kind: str, acceleration: float, seed: int = 0) -> tuple[Image, float]:
        """K-space with lines, or samples, dropped, and its true acceleration."""
        received = measured(self.kspace)
        kept = kept_samples(
            received, kind, acceleration, self.calibration, seed, self.axis, self.true
        )
        return self.kspace * kept, float(received.sum() / kept.sum())

    def run(
        self,
        kind: str,
        acceleration: float,
        reconstruct: Callable[[Image], Any],
        mask_seed: int = 0,
        before: Callable[[str], None] = lambda method: None,
    ) -> tuple[list[MethodScore], Comparison]:
        """Reconstruct one undersampled version of the slice by every method.

        Where the object folds, so that the reconstruction has two sets of coil maps, no MVUE is
        right and the reference is the root sum of squares of the full data, less its noise.

        Parameters
        ----------
        kind, acceleration, mask_seed : see `kept_samples`
        reconstruct : k-space (coil, y, x) to a `Reconstruction`, with every estimate its own
        before : called with the name of the method about to run
        """
        kspace, true_acceleration = self.undersampled(kind, acceleration, mask_seed)
        covariance = covariance_from_edges(kspace)
        maps = estimate_coil_maps(kspace, noise_covariance=covariance)[0]
        problem = Problem(kspace, maps, noise_covariance=covariance)
        found: dict[str, list[tuple[Answer, float]]] = {}
        for method, candidates in CLASSICAL.items():
            before(method)
            found[method] = [_timed(partial(candidate, problem)) for candidate in candidates]
        before(POSTERIOR_MEAN)
        result, seconds = _timed(lambda: reconstruct(kspace))
        ours = Answer(result.mean[0], result.samples[0], result.info.effective_samples)
        found[POSTERIOR_MEAN] = [(ours, seconds)]

        folds = _folds(result)
        reference = self.root_sum_of_squares if folds else self.reference
        rest: dict[str, Any] = _of_info(result.info)
        std = result.magnitude_std[0]
        if np.isfinite(std).all():
            compared = self._reference(result, folds, kspace, reconstruct)
        else:
            compared = Reference(reference)
            rest["note"] = result.info.reason or "no samples"

        scores, images = [], {}
        for method, answers in found.items():
            answer, seconds = max(answers, key=lambda pair: psnr(pair[0].image, reference))
            images[method] = answer.image
            fixed = [a.image for a, _ in answers if a.note == lambda_note(FIXED_LAMBDA)]
            scores.append(
                MethodScore(
                    method=method,
                    slice=self.index,
                    acceleration=acceleration,
                    true_acceleration=true_acceleration,
                    seconds=seconds,
                    reference=REFERENCES[folds],
                    psnr_fixed_lambda=psnr(fixed[0], reference) if fixed else None,
                    **vars(score(answer, compared)),
                    **({"note": answer.note} | (rest if answer is ours else {})),
                )
            )
        error = abs(result.magnitude[0] - abs(reference))
        return scores, Comparison(reference, images, std, error.astype(np.float32))

    def _reference(
        self, result: Any, folds: bool, kspace: Image, reconstruct: Callable[[Image], Any]
    ) -> Reference:
        """What the samples are compared with, and its noise.

        It is the MVUE with the samples' own coil maps, and so has their phase; of an object that
        folds, the root sum of squares.
        """
        maps = self.coil_directions if folds else result.maps[0, 0]
        noise = reference_noise_variance(self.noise, maps)
        shared = self._shared_noise(result, folds, maps, kspace, reconstruct)
        return Reference(
            self.root_sum_of_squares if folds else self.reference,
            None if folds else mvue(self.kspace, maps),
            noise - 2 * shared,
        )

    def _shared_noise(
        self,
        result: Any,
        folds: bool,
        maps: Image,
        kspace: Image,
        reconstruct: Callable[[Image], Any],
    ) -> NDArray[np.float64]:
        """Covariance E Re(e n^*) of the mean's error e with the noise n of the reference, (y, x).

        The lines that were kept are in the reference too, and the mean follows their noise in part:
        |mean - reference|^2 is |e|^2 + |n|^2 less twice this.  It is found as the divergence is in
        Monte Carlo SURE (Ramani et al. 2008), by what becomes of a little more noise; a single
        probe is enough for an average over the image.
        """
        rng = np.random.default_rng(0)
        white = rng.standard_normal((2, *kspace.shape))
        root = PROBE * np.linalg.inv(whitening_matrix(self.noise))
        lines = np.asarray(measured(self.kspace).any(axis=1))[:, None]
        probe = whiten(white[0] + 1j * white[1], root) * lines
        noisy = reconstruct((kspace + probe * (kspace != 0)).astype(np.complex64))
        if folds:
            # of two equal components the magnitude has one
            change = 2 * (noisy.magnitude[0] - result.magnitude[0])
        else:
            # its own maps have another phase
            turn = np.sum(maps.conj() * noisy.maps[0, 0], axis=0)
            change = noisy.mean[0] * turn - result.mean[0]
        shared: NDArray[np.float64] = np.real(change * mvue(probe, maps).conj())
        return shared / PROBE**2


def _folds(result: Any) -> bool:
    """Whether a reconstruction needed a second set of coil maps anywhere."""
    maps = result.maps[0]
    # NaN, of a slice without maps, is not above zero
    return len(maps) == 2 and bool(np.any(np.abs(maps[1]) > 0))


def _of_info(info: Any) -> dict[str, float | None]:
    """What a table has of `Info`: noise levels in units of the scale."""

    def number(name: str, unit: float = 1.0) -> float | None:
        value = getattr(info, name)[0] / unit
        return float(value) if np.isfinite(value) else None

    return {
        "misfit": number("misfit"),
        "sigma_thermal": number("sigma_thermal", info.scale[0]),
        "sigma_n": number("sigma_n", info.scale[0]),
    }


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start
