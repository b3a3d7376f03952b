"""How wide a prior's samples should be, for its card."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.mri.fourier import to_kspace
from scoremri_core.priors.base import Denoiser
from scoremri_core.recon.reconstruction import reconstruct
from scoremri_core.score.metrics import crps
from scoremri_core.simulation.masks import make_mask
from scoremri_core.training.augment import scanned_image
from scoremri_core.training.measure import evenly_spaced
from scoremri_core.training.slices import Slice

logger = logging.getLogger(__name__)

INFLATIONS = (1.0, 1.5, 2.0, 3.0)
VARIANCE_SCALES = (0.7, 1.0, 1.4, 2.0)
MASKS = (("equispaced", 6), ("random", 6), ("poisson", 8))  # with 24 calibration lines
SCANS = 6  # for each candidate
SIGMA = 0.01  # of the noise, where the images are about 1


@dataclass(frozen=True)
class _Scan:
    """Truth (y, x), undersampled k-space and maps (coil, y, x), noise covariance (coil, coil)."""

    truth: NDArray[np.complex64]
    kspace: NDArray[np.complex64]
    maps: NDArray[np.complex64]
    covariance: NDArray[np.complex64]


def calibrate_variance(
    prior: Denoiser,
    slices: list[Slice],
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
    seed: int = 0,
) -> dict[str, Any]:
    """Choose the two factors on the error variance that a prior predicts.

    Simulated 8-coil scans of validation slices, as they are and with each of three kinds of mask,
    are sampled with every candidate (true coil maps): first for the inflation, then, with the best
    of these, for the variance scale.  The one with the lowest continuous ranked probability score,
    a proper score of mean and width together, is taken; the variance scale where a parabola through
    the scores of the best candidate and its neighbours is lowest.

    Parameters
    ----------
    device : where to sample.
    progress : called after each reconstruction with the number done, `reconstructions` in all.

    Returns
    -------
    `inflation`, `variance_scale`, and `variance_calibration`: for every candidate root mean square
    error in units of the prior, sd over error, and the continuous ranked probability score.
    """
    rng = np.random.default_rng(seed)
    scans = [_simulated_scan(s, i, rng) for i, s in enumerate(evenly_spaced(slices, SCANS))]
    table: list[dict[str, float]] = []

    def tried(variance_scale: float, inflation: float) -> dict[str, float]:
        done = len(table) * len(scans)
        # the noise of simulated scans is known
        draw = partial(reconstruct, prior=prior, seed=seed, device=device, adapt_noise=False)
        row = _measured(
            partial(draw, variance_scale=variance_scale, inflation=inflation),
            scans,
            lambda scan: progress(done + scan),
        )
        row = {"inflation": inflation, "variance_scale": variance_scale, **row}
        logger.info(
            "inflation %(inflation)g, variance x %(variance_scale)g: error %(rms_error).4f, "
            "sd/error %(sd_over_error).2f, CRPS %(crps).5f",
            row,
        )
        table.append(row)
        return row

    rows = [tried(1.0, inflation) for inflation in INFLATIONS]
    best = min(rows, key=itemgetter("crps"))
    rows = [best if c == 1 else tried(c, best["inflation"]) for c in VARIANCE_SCALES]
    scales, scores = (np.array([row[name] for row in rows]) for name in ("variance_scale", "crps"))
    return {
        "inflation": best["inflation"],
        "variance_scale": round(float(np.exp(_lowest(np.log(scales), scores))), 2),
        "variance_calibration": table,
    }


def _lowest(x: NDArray[Any], y: NDArray[Any]) -> Any:
    """Where the parabola through the least of some points and its neighbours is lowest."""
    i = int(y.argmin())
    if i in (0, len(y) - 1):
        return x[i]
    square, linear, _ = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
    return -linear / square / 2


def reconstructions() -> int:
    """How many it takes."""
    return SCANS * (len(INFLATIONS) + len(VARIANCE_SCALES) - (1.0 in VARIANCE_SCALES))


def _measured(
    draw: Callable[..., Any], scans: list[_Scan], progress: Callable[[int], None]
) -> dict[str, float]:
    """Of all scans together: error, sd over error, score."""
    scores, variances, errors = [], [], []
    for scan in scans:
        result = draw(scan.kspace, noise_covariance=scan.covariance, maps=scan.maps)
        effective = result.info.effective_samples
        scores.append(crps(result.samples[0], scan.truth, effective))
        variances.append(np.mean(result.std**2) * (1 + 1 / effective))
        errors.append(np.mean(np.abs(result.mean[0] - scan.truth) ** 2))
        progress(len(errors))
    return {
        "rms_error": float(np.sqrt(np.mean(errors))),
        "sd_over_error": float(np.sqrt(np.mean(variances) / np.mean(errors))),
        "crps": float(np.mean(scores)),
    }


def _simulated_scan(
    source: Slice, index: int, rng: np.random.Generator, size: int = 224, coils: int = 8
) -> _Scan:
    import sigpy.mri

    truth = scanned_image(source.image, size, rng)
    maps = sigpy.mri.birdcage_maps((coils, size, size)).astype(np.complex64)
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    noise = rng.standard_normal((2, coils, size, size), dtype=np.float32)
    kind, acceleration = MASKS[index % len(MASKS)]
    shape = (size, size) if kind == "poisson" else (size,)
    sampled = make_mask(kind, shape, acceleration, 24, seed=index).sampled
    kspace = to_kspace(maps * truth) + SIGMA * (noise[0] + 1j * noise[1])
    kspace *= sampled.reshape(size, -1)
    covariance = 2 * SIGMA**2 * np.eye(coils, dtype=np.complex64)
    return _Scan(truth, kspace.astype(np.complex64), maps, covariance)
