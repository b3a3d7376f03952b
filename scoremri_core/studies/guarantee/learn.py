"""Learn from fully sampled frames how far the intervals of samples have to be stretched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace
from scoremri_core.priors.model import ModelPrior
from scoremri_core.recon.result import Reconstruction
from scoremri_core.score.conformal import (
    LEVEL,
    REGIONS,
    ratios_of,
    regions_of,
    stretch_factor,
)
from scoremri_core.score.guarantee import (
    MARGINS,
    Conditions,
    Guarantee,
    interval_of_samples,
)
from scoremri_core.simulation.retrospective import AXES
from scoremri_core.studies.evaluate.comparison import Evaluation
from scoremri_core.studies.evaluate.survey import FullScan

logger = logging.getLogger(__name__)

LEAST_FRAMES = 20

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class CalibrationFrame:
    """A retrospectively undersampled frame with its reference.

    Attributes
    ----------
    scan : str
    ratios : list of float array, (pixel,)
        Error over half width, by region; see `ratios_of`.
    widths : list of float
        Mean half width over the maximum of the image, by region.
    conditions : Conditions
    """

    scan: str
    ratios: list[NDArray[Any]]
    widths: list[float]
    conditions: Conditions


@dataclass(frozen=True)
class Protocol:
    """Retrospective undersampling of every frame.

    Attributes
    ----------
    mask : str
        One of `scoremri_core.simulation.retrospective.MASKS`.
    acceleration : float
        See `kept_samples`.
    calibration : int or str
        Number or percentage of calibration lines.
    axis, true : str, bool
        See `kept_samples`.
    seed : int
        Of random masks; the next frame takes the next one.
    """

    mask: str
    acceleration: float
    calibration: int | str = 24
    axis: str = AXES[0]
    true: bool = False
    seed: int = 0


def calibration_frames(
    scans: Sequence[FullScan],
    protocol: Protocol,
    reconstruct: Callable[[Image, int], Reconstruction],
    prior: ModelPrior,
) -> Iterator[CalibrationFrame]:
    """Undersample and reconstruct each slice, and compare it with the full data.

    Parameters
    ----------
    scans : sequence of FullScan
    protocol : Protocol
    reconstruct : callable
        Maps k-space (coil, y, x) and the number of the frame to a `Reconstruction`.
    prior : ModelPrior
        Of the reconstruction.

    Yields
    ------
    CalibrationFrame

    Raises
    ------
    InputError
        A frame could not be sampled.
    """
    frames = [(scan.name, index, k) for scan in scans for index, k in scan.slices.items()]
    for number, (name, index, full) in enumerate(frames):
        evaluation = Evaluation(full, index, protocol.calibration, protocol.axis, protocol.true)
        kspace, _ = evaluation.undersampled(
            protocol.mask, protocol.acceleration, protocol.seed + number
        )
        result = reconstruct(kspace, number)
        if result.info.reason:
            raise InputError(f"{name}, slice {index}: cannot be sampled: {result.info.reason}")
        magnitude, width = interval_of_samples(result)
        regions = regions_of(magnitude, width)
        error = magnitude - np.abs(evaluation.reference_of(result))
        peak = float(magnitude.max())
        yield CalibrationFrame(
            name,
            ratios_of(error, width, regions),
            [float(width[regions == r].mean()) / peak for r in range(1, REGIONS + 1)],
            Conditions.of(KSpace.of(kspace), result, prior),
        )


def learn(frames: Sequence[CalibrationFrame], protocol: Protocol) -> Guarantee:
    """Calibrate the intervals, and measure them on scans that are left out.

    Parameters
    ----------
    frames : sequence of CalibrationFrame
        At least LEAST_FRAMES, of one matrix, number of coils, prior and sampler.
    protocol : Protocol

    Returns
    -------
    Guarantee

    Raises
    ------
    InputError
        Too few frames, frames that differ in their settings, or intervals of width 0.
    """
    check_number(len(frames))
    settings = frames[0].conditions.settings
    for frame in frames[1:]:
        for name, value in frame.conditions.settings.items():
            if value != settings[name]:
                raise InputError(
                    f"{frame.scan}: {name} is {value}: expected {settings[name]}, as in "
                    f"{frames[0].scan}; a guarantee is for one protocol"
                )
    factors = factors_of(frames)
    if not np.isfinite(factors).all():
        raise InputError("the intervals have width 0 in many pixels: no factor makes them hold")
    scans = len({frame.scan for frame in frames})
    if scans < LEAST_FRAMES:
        logger.warning(
            "%d frames of %d scans: frames of one scan resemble each other, so that the guarantee, "
            "which assumes independent frames, holds less exactly",
            len(frames),
            scans,
        )
    measured = {name: [f.conditions.measures[name] for f in frames] for name in MARGINS}
    return Guarantee(
        factors,
        len(frames),
        {**vars(protocol), "scans": scans},
        settings,
        {name: [min(values), max(values)] for name, values in measured.items()},
        left_out(frames),
    )


def check_number(frames: int) -> None:
    """Raise InputError for fewer than LEAST_FRAMES frames."""
    if frames < LEAST_FRAMES:
        raise InputError(f"{frames} fully sampled frames: expected at least {LEAST_FRAMES}")


def factors_of(frames: Sequence[CalibrationFrame], by_region: bool = True) -> tuple[float, ...]:
    """Return the factor of each region, or the same for all.

    Parameters
    ----------
    frames : sequence of CalibrationFrame
    by_region : bool, optional

    Returns
    -------
    tuple of float
    """
    if not by_region:
        pooled = [np.sort(np.concatenate(frame.ratios)) for frame in frames]
        return (stretch_factor(pooled),) * REGIONS
    return tuple(stretch_factor([f.ratios[i] for f in frames]) for i in range(REGIONS))


def left_out(frames: Sequence[CalibrationFrame]) -> dict[str, Any]:
    """Measure the intervals of each scan with factors from the other scans.

    With a single scan, each frame is left out instead.

    Parameters
    ----------
    frames : sequence of CalibrationFrame

    Returns
    -------
    dict
        For factors by region ("regions"), one factor for all pixels ("plain") and the samples'
        intervals ("samples"): mean coverage, coverage of each region, least coverage of a frame,
        and mean half width over the maximum of the image; "refused": fraction of the frames that
        would be refused.
    """
    scans = [frame.scan for frame in frames]
    single = len(set(scans)) == 1
    coverage: dict[str, list[NDArray[np.float64]]] = {"regions": [], "plain": [], "samples": []}
    widths: dict[str, list[float]] = {name: [] for name in coverage}
    refused = 0
    for number, frame in enumerate(frames):
        others = [
            other
            for i, other in enumerate(frames)
            if (i != number if single else other.scan != frame.scan)
        ]
        refused += any(
            not low / MARGINS[name] <= frame.conditions.measures[name] <= high * MARGINS[name]
            for name in MARGINS
            for low, high in [_range(others, name)]
        )
        for name, factors in (
            ("regions", factors_of(others)),
            ("plain", factors_of(others, by_region=False)),
            ("samples", (1.0,) * REGIONS),
        ):
            held = [np.mean(r <= c) for r, c in zip(frame.ratios, factors, strict=True)]
            coverage[name].append(np.array(held))
            widths[name].append(float(np.mean(np.multiply(factors, frame.widths))))
    result: dict[str, Any] = {
        name: {
            "coverage": float(np.mean(values)),
            "coverage_of_regions": np.mean(values, axis=0).tolist(),
            "least_coverage": float(min(np.mean(value) for value in values)),
            "half_width": float(np.mean(widths[name])),
        }
        for name, values in coverage.items()
    }
    return {"level": LEVEL, **result, "refused": refused / len(frames)}


def _range(frames: Sequence[CalibrationFrame], name: str) -> tuple[float, float]:
    values = [frame.conditions.measures[name] for frame in frames]
    return min(values), max(values)
