"""Retrospective undersampling of a fully sampled slice, and scores of each method."""

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

PROBE = 0.3  # sd of the noise probe over that of the data
METHODS = (*CLASSICAL, POSTERIOR_MEAN)
REFERENCES = ("MVUE", "root sum of squares")

Image = NDArray[np.complex64]


@dataclass(frozen=True, kw_only=True)
class RunMetrics(Uncertainty):
    """Measurements of a reconstruction, of one slice or averaged.

    Attributes
    ----------
    true_acceleration : float or None
        Calibration lines included.
    misfit, sigma_thermal, sigma_n : float or None
        Of the reconstruction's `Info`, the last two over its scale.
    seconds : float or None
        Of the reconstruction, including coil maps for the posterior mean only.
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
        R as requested.
    reference : str
        One of REFERENCES.
    note : str
        The chosen lambda, or the reason of a fallback.
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
    """Images of one undersampled slice.

    Attributes
    ----------
    reference : complex64 array, (y, x)
        From the full data.
    images : mapping of str to complex64 array, (y, x)
        By method.
    std, error : float32 array, (y, x)
        Posterior sd and error of the magnitude.
    """

    reference: Image
    images: Mapping[str, Image]
    std: NDArray[np.float32]
    error: NDArray[np.float32]


class Evaluation:
    """Scores of each method on one fully sampled slice.

    Parameters
    ----------
    kspace : complex64 array, (coil, y, x)
        Fully sampled, centred; empty lines at the ends are allowed.
    index : int, optional
        Of the slice, for the scores.
    calibration : int or str, optional
        Number or fraction of calibration lines. The reference is the MVUE of the full data with
        coil maps from these.
    axis, true : str, bool, optional
        See `kept_samples`.
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
        """Root sum of squares of the full data, (y, x), with the mean noise power subtracted.

        Noise biases a sum of squares: without subtraction noisy images would score better in the
        background.
        """
        power = root_sum_of_squares(self.kspace) ** 2
        received = measured(self.kspace).mean()
        signal = np.maximum(power - np.trace(self.noise).real * received, 0)
        root: Image = np.sqrt(signal).astype(np.complex64)
        return root

    @cached_property
    def coil_directions(self) -> Image:
        """Coil images over their root sum of squares: maps whose MVUE is that root."""
        images = to_image(self.kspace)
        norm = np.linalg.norm(images, axis=0)
        directions: Image = images / np.where(norm > 0, norm, 1)
        return directions

    def undersampled(self, kind: str, acceleration: float, seed: int = 0) -> tuple[Image, float]:
        """Return undersampled k-space, (coil, y, x), and its true acceleration."""
        received = measured(self.kspace)
        kept = kept_samples(
            received, kind, acceleration, self.calibration, seed, self.axis, self.true
        )
        return self.kspace * kept, float(received.sum() / kept.sum())

    def reference_of(self, result: Any) -> Image:
        """Return the reference, (y, x); the root sum of squares for two sets of maps."""
        return self.root_sum_of_squares if _is_aliased(result) else self.reference

    def run(
        self,
        kind: str,
        acceleration: float,
        reconstruct: Callable[[Image], Any],
        mask_seed: int = 0,
        before: Callable[[str], None] = lambda method: None,
    ) -> tuple[list[MethodScore], Comparison]:
        """Undersample the slice, and reconstruct it by each method.

        If the object is larger than the field of view, so that the reconstruction has two sets of
        coil maps, no MVUE is exact, and the reference is `root_sum_of_squares`.

        Parameters
        ----------
        kind : str
            See `kept_samples`.
        acceleration : float
            See `kept_samples`.
        reconstruct : callable
            Maps k-space (coil, y, x) to a `Reconstruction`, estimating noise, maps and scale.
        mask_seed : int, optional
            See `kept_samples`.
        before : callable, optional
            Called with the name of the next method.

        Returns
        -------
        scores : list of MethodScore
        comparison : Comparison
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

        aliased = _is_aliased(result)
        reference = self.root_sum_of_squares if aliased else self.reference
        rest: dict[str, Any] = _of_info(result.info)
        std = result.magnitude_std[0]
        if np.isfinite(std).all():
            compared = self._reference(result, aliased, kspace, reconstruct)
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
                    reference=REFERENCES[aliased],
                    psnr_fixed_lambda=psnr(fixed[0], reference) if fixed else None,
                    **vars(score(answer, compared)),
                    **({"note": answer.note} | (rest if answer is ours else {})),
                )
            )
        error = abs(result.magnitude[0] - abs(reference))
        return scores, Comparison(reference, images, std, error.astype(np.float32))

    def _reference(
        self, result: Any, aliased: bool, kspace: Image, reconstruct: Callable[[Image], Any]
    ) -> Reference:
        """Return the reference of the samples and its noise.

        The MVUE with the coil maps of the samples has their phase; the root sum of squares for an
        object larger than the field of view.
        """
        maps = self.coil_directions if aliased else result.maps[0, 0]
        noise = reference_noise_variance(self.noise, maps)
        shared = self._shared_noise(result, aliased, maps, kspace, reconstruct)
        return Reference(
            self.root_sum_of_squares if aliased else self.reference,
            None if aliased else mvue(self.kspace, maps),
            noise - 2 * shared,
        )

    def _shared_noise(
        self,
        result: Any,
        aliased: bool,
        maps: Image,
        kspace: Image,
        reconstruct: Callable[[Image], Any],
    ) -> NDArray[np.float64]:
        """Estimate E Re(e n^*) of the mean's error e and the noise n of the reference, (y, x).

        The kept lines are part of the reference, and the mean follows their noise in part:
        |mean - reference|^2 is |e|^2 + |n|^2 less twice this covariance. Estimated with a noise
        probe, like the divergence in Monte Carlo SURE (Ramani et al. 2008); one probe suffices for
        an average over the image.
        """
        rng = np.random.default_rng(0)
        white = rng.standard_normal((2, *kspace.shape))
        root = PROBE * np.linalg.inv(whitening_matrix(self.noise))
        lines = np.asarray(measured(self.kspace).any(axis=1))[:, None]
        probe = whiten(white[0] + 1j * white[1], root) * lines
        noisy = reconstruct((kspace + probe * (kspace != 0)).astype(np.complex64))
        if aliased:
            # the magnitude has one of two equal components
            change = 2 * (noisy.magnitude[0] - result.magnitude[0])
        else:
            # its coil maps may have another phase
            rotation = np.sum(maps.conj() * noisy.maps[0, 0], axis=0)
            change = noisy.mean[0] * rotation - result.mean[0]
        shared: NDArray[np.float64] = np.real(change * mvue(probe, maps).conj())
        return shared / PROBE**2


def _is_aliased(result: Any) -> bool:
    """Whether a reconstruction has a second set of coil maps in any pixel."""
    maps = result.maps[0]
    # the NaN maps of a failed estimate do not count
    return len(maps) == 2 and bool(np.any(np.abs(maps[1]) > 0))


def _of_info(info: Any) -> dict[str, float | None]:
    """Return misfit and noise levels of `Info`, the latter over the scale."""

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
