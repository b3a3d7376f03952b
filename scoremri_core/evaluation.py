"""Retrospective undersampling of a fully sampled slice: every method against one reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.classical import cg_sense, l1_wavelet, mvue, zero_filled
from scoremri_core.coil_maps import estimate_coil_maps
from scoremri_core.masks import make_mask
from scoremri_core.metrics import (
    coverage,
    crps,
    psnr,
    reference_noise_variance,
    sd_to_error,
    ssim,
)
from scoremri_core.noise import covariance_from_edges, whiten, whitening_matrix

logger = logging.getLogger(__name__)

PROBE = 0.3  # sd of the noise that is added to find out what becomes of noise, in sd of the data's
LAMBDAS = (0.003, 0.01, 0.03)  # L1-wavelet gets the best of these, chosen by its PSNR
METHODS = ("zero-filled", "CG-SENSE", "L1-wavelet", "posterior mean")

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class Score:
    """One method on one undersampled slice; what a method does not have is None.

    Attributes
    ----------
    method : one of METHODS.
    slice : index of the slice.
    acceleration : R as asked for; `true_acceleration` counts the calibration lines too.
    psnr, ssim, masked_psnr, masked_ssim : see `scoremri_core.metrics`.
    sd_to_error : posterior sd over error of the complex mean, `sd_to_error_magnitude` that of the
        magnitudes in the head; the noise that the reference alone has is taken off the error.
    coverage_50 : share of the head within the samples' central 50 % interval.
    crps : continuous ranked probability score over the reference's maximum.
    seconds : of the reconstruction, its coil maps included for the posterior mean alone.
    note : the lambda that was chosen, or why there are no samples.
    """

    method: str
    slice: int
    acceleration: float
    true_acceleration: float
    psnr: float
    ssim: float
    masked_psnr: float
    masked_ssim: float
    seconds: float
    sd_to_error: float | None = None
    sd_to_error_magnitude: float | None = None
    coverage_50: float | None = None
    crps: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Images (y, x) of one undersampled slice: reference, by method, and the posterior's sd."""

    reference: Image
    images: Mapping[str, Image]
    std: NDArray[np.float32]


class Evaluation:
    """Scores of every method on one fully sampled slice.

    Parameters
    ----------
    kspace : (coil, y, x) complex, fully sampled, centred; empty lines at the ends are allowed.
    index : of the slice, for the scores.
    calibration : number of calibration lines; the reference is the MVUE of the full data with
        coil maps from these.
    """

    def __init__(self, kspace: Image, index: int = 0, calibration: int = 24) -> None:
        self.kspace = kspace
        self.index = index
        self.calibration = calibration
        self.noise = covariance_from_edges(kspace)
        lines = make_mask("equispaced", kspace.shape[1:2], 1, calibration).calibration
        self.reference = mvue(kspace, estimate_coil_maps(kspace * lines[:, None])[0])

    def undersampled(self, kind: str, acceleration: float, seed: int = 0) -> tuple[Image, float]:
        """K-space with lines dropped, and its true acceleration."""
        lines = self.kspace.shape[1]
        mask = make_mask(kind, (lines,), acceleration, self.calibration, seed=seed).sampled
        received = np.any(self.kspace != 0, axis=(0, 2))
        kept = received & mask
        return self.kspace * mask[:, None], received.sum() / kept.sum()

    def run(
        self,
        kind: str,
        acceleration: float,
        reconstruct: Callable[[Image], Any],
        mask_seed: int = 0,
        before: Callable[[str], None] = lambda method: None,
    ) -> tuple[list[Score], Comparison]:
        """Reconstruct one undersampled version of the slice by every method.

        Parameters
        ----------
        kind, acceleration, mask_seed : see `scoremri_core.masks.make_mask`
        reconstruct : k-space (coil, y, x) to a `Reconstruction`, with every estimate its own
        before : called with the name of the method about to run
        """
        kspace, true_acceleration = self.undersampled(kind, acceleration, mask_seed)
        covariance = covariance_from_edges(kspace)
        maps = estimate_coil_maps(kspace, noise_covariance=covariance)[0]
        scores, images = [], {}

        def add(method: str, image: Image, seconds: float, **rest: Any) -> None:
            images[method] = image
            scores.append(
                Score(
                    method,
                    self.index,
                    acceleration,
                    float(true_acceleration),
                    psnr(image, self.reference),
                    ssim(image, self.reference),
                    psnr(image, self.reference, masked=True),
                    ssim(image, self.reference, masked=True),
                    seconds,
                    **rest,
                )
            )

        for method, candidates in _baselines(kspace, maps, covariance).items():
            before(method)
            found = [(*_timed(make), note) for note, make in candidates]
            image, seconds, note = max(found, key=lambda f: psnr(f[0], self.reference))
            add(method, image, seconds, note=note)
        before(METHODS[-1])
        result, seconds = _timed(lambda: reconstruct(kspace))
        if np.isfinite(result.std).all():
            add(
                METHODS[-1],
                result.mean[0],
                seconds,
                **self._uncertainty(result, kspace, reconstruct),
            )
        else:
            note = str(result.info.fallback or "no samples")
            add(METHODS[-1], result.mean[0], seconds, note=note)
        return scores, Comparison(self.reference, images, result.std[0])

    def _uncertainty(
        self, result: Any, kspace: Image, reconstruct: Callable[[Image], Any]
    ) -> dict[str, float]:
        """Scores of the samples, against the MVUE in the phase of the samples' own maps."""
        maps = result.maps[0, 0]
        reference = mvue(self.kspace, maps)
        noise = reference_noise_variance(self.noise, maps)
        noise = noise - 2 * self._shared_noise(result, kspace, reconstruct)
        samples = result.samples[0]
        magnitudes = np.abs(samples)
        count, effective = len(samples), result.info.effective_samples
        spread = magnitudes.std(0, ddof=count / effective)
        scores = {
            "sd_to_error": sd_to_error(result.std[0], effective, result.mean[0], reference, noise),
            "sd_to_error_magnitude": sd_to_error(
                spread, effective, magnitudes.mean(0), reference, noise, True
            ),
            "crps": crps(samples, reference, effective) / float(np.abs(reference).max()),
        }
        if count >= 3:
            scores["coverage_50"] = coverage(samples, reference, 0.5, effective)
        return scores

    def _shared_noise(
        self, result: Any, kspace: Image, reconstruct: Callable[[Image], Any]
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
        probe = (
            whiten(white[0] + 1j * white[1], root) * np.any(self.kspace != 0, axis=(0, 2))[:, None]
        )
        noisy = reconstruct((kspace + probe * (kspace != 0)).astype(np.complex64))
        maps = result.maps[0, 0]
        # its own maps have another phase
        mean = noisy.mean[0] * np.sum(maps.conj() * noisy.maps[0, 0], axis=0)
        shared: NDArray[np.float64] = np.real((mean - result.mean[0]) * mvue(probe, maps).conj())
        return shared / PROBE**2


def _baselines(
    kspace: Image, maps: Image, covariance: NDArray[Any]
) -> dict[str, list[tuple[str, Callable[[], Image]]]]:
    """For each method its candidates, of which the best counts: a note and what to call."""
    return {
        "zero-filled": [("", lambda: zero_filled(kspace, maps))],
        "CG-SENSE": [("", lambda: cg_sense(kspace, maps, covariance))],
        "L1-wavelet": [
            (f"lambda {lam:g}", lambda lam=lam: l1_wavelet(kspace, maps, lam))  # type: ignore[misc]
            for lam in LAMBDAS
        ],
    }


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def averaged(scores: list[Score]) -> Iterator[dict[str, Any]]:
    """Means over the slices for each acceleration and method, in the order of the scores."""
    groups: dict[tuple[float, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.acceleration, score.method), []).append(score)
    names = [n for n, t in Score.__annotations__.items() if t.startswith("float")]
    for (_, method), group in groups.items():
        columns = {name: [getattr(score, name) for score in group] for name in names}
        yield {
            "method": method,
            **{
                name: None if None in values else float(np.mean(values))
                for name, values in columns.items()
            },
            "note": ", ".join(sorted({score.note for score in group if score.note})),
        }
