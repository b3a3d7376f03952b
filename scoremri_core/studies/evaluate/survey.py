"""Evaluation of many fully sampled scans: one row per scan, mask and acceleration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.scans.formats.recognise import SUFFIXES, data_file, may_be_raw_data
from scoremri_core.scans.gridding import fully_sampled_kspace
from scoremri_core.score.intervals import interval
from scoremri_core.simulation.masks import KINDS
from scoremri_core.simulation.retrospective import AXES, BOTH_AXES
from scoremri_core.studies.evaluate.comparison import (
    METHODS,
    REFERENCES,
    Comparison,
    Evaluation,
    MethodScore,
    RunMetrics,
)
from scoremri_core.studies.methods import L1_WAVELET, POSTERIOR_MEAN

logger = logging.getLogger(__name__)

DEFAULT_MASKS = ("equispaced", "random", "poisson", BOTH_AXES)
ACCELERATIONS = (4.0, 6.0, 8.0)
ONE_COIL = (3.0,)  # not equispaced: a single coil does not resolve coherent aliases
HONEST_RATIO = (0.8, 1.25)  # sd/err
HONEST_COVERAGE = (0.85, 0.95)

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class FullScan:
    """Slices of a fully sampled scan: index to k-space (coil, y, x)."""

    name: str
    slices: dict[int, Image]

    @property
    def coils(self) -> int:
        """Receive coils."""
        return len(next(iter(self.slices.values())))


@dataclass(frozen=True)
class ScanScore(RunMetrics):
    """Mean scores of one mask and acceleration of a scan; None if unknown.

    Attributes
    ----------
    scan, mask, acceleration, slices : str, str, float, list of int
        The reconstructed data.
    gain : float or None
        PSNR of the posterior mean less that of L1-wavelet, in dB.
    psnr, ssim, masked_ssim : dict of str to float
        By method.
    psnr_fixed_lambda : float or None
        Of L1-wavelet with FIXED_LAMBDA.
    gain_interval : float or None
        Half the 95 % interval of the mean gain over slices.
    reference : str
        Of the posterior mean's scores.
    fallback : str
        Why there are no samples.
    error : str
        Why the case failed.
    scores : list of MethodScore
        Of each slice and method.
    """

    scan: str
    mask: str
    acceleration: float
    slices: list[int]
    gain: float | None = None
    psnr: dict[str, float] = field(default_factory=dict)
    ssim: dict[str, float] = field(default_factory=dict)
    masked_ssim: dict[str, float] = field(default_factory=dict)
    psnr_fixed_lambda: float | None = None
    gain_interval: float | None = None
    reference: str = REFERENCES[0]
    fallback: str = ""
    error: str = ""
    scores: list[MethodScore] = field(default_factory=list)


AVERAGED = tuple(figure.name for figure in fields(RunMetrics))
OF_METHODS = ("psnr", "ssim", "masked_ssim")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """List files, and possible raw data in folders, searched recursively.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        A missing path, or a folder without raw data.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if may_be_raw_data(p))
            if not inside:
                raise InputError(f"{path}: no scans: expected {', '.join(SUFFIXES)} files")
            files += inside
        elif data_file(path).is_file():
            files.append(data_file(path))
        else:
            raise InputError(f"{path}: no such file or folder")
    return list(dict.fromkeys(files))


def read_scans(
    files: Sequence[Path],
    choose: Callable[[Path, int], Sequence[int]],
    group: str = "dataset",
) -> list[FullScan]:
    """Read fully sampled scans, skipping other files with a warning.

    Parameters
    ----------
    files : sequence of Path
    choose : callable
        Maps a file and its number of slices to the indices of the slices to read.
    group : str, optional
        Group of the scan in an ISMRMRD file.

    Returns
    -------
    list of FullScan

    Raises
    ------
    InputError
        No file is a fully sampled scan.
    """
    scans, reasons = [], []
    names = [path.name for path in files]
    for path in files:
        try:
            kspace = fully_sampled_kspace(path, group)
            slices = {index: kspace[index].copy() for index in choose(path, len(kspace))}
        # a file that breaks its reader must not stop the others
        except Exception as error:
            reason = _reason(error)
            reasons.append(reason if str(path) in reason else f"{path}: {reason}")
            if len(files) > 1:
                logger.warning("skipped %s", reasons[-1])
                logger.debug("skipped %s", path, exc_info=True)
            continue
        scans.append(FullScan(path.name if names.count(path.name) == 1 else str(path), slices))
    if not scans:
        if len(files) == 1:
            raise InputError(reasons[0])
        raise InputError(
            f"data: none of {len(files)} files is a fully sampled ISMRMRD scan; the first: "
            f"{reasons[0]}"
        )
    return scans


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices of `total` slices."""
    count = min(count, total)
    return [int((i + 0.5) * total / count) for i in range(count)]


def cases(
    coils: int, masks: Sequence[str], accelerations: Sequence[float] | None
) -> list[tuple[str, float]]:
    """Combine masks with accelerations, by default those suited to the number of coils."""
    if accelerations:
        return list(product(masks, accelerations))
    if coils > 1:
        return list(product(masks, ACCELERATIONS))
    return list(product([mask for mask in masks if mask != KINDS[0]], ONE_COIL))


def survey(
    scans: Sequence[FullScan],
    masks: Sequence[str],
    accelerations: Sequence[float] | None,
    reconstruct: Callable[[Image], Any],
    calibration: int | str = 24,
    seed: int = 0,
    before: Callable[[FullScan, str, float, int, str], None] = lambda *case: None,
    axis: str = AXES[0],
    true: bool = False,
    known: Mapping[tuple[str, str, float], ScanScore] = MappingProxyType({}),
) -> Iterator[tuple[ScanScore, Comparison | None]]:
    """Evaluate each case of each scan; a failure is a row with its reason.

    Parameters
    ----------
    scans : sequence of FullScan
    masks, accelerations
        See `cases`.
    reconstruct : callable
        See `Evaluation.run`.
    calibration : int or str, optional
        See `Evaluation`.
    seed : int, optional
        Of random masks.
    before : callable, optional
        Called with scan, mask, acceleration, slice and method before each reconstruction.
    axis, true : str, bool, optional
        See `scoremri_core.simulation.retrospective.kept_samples`.
    known : mapping, optional
        Rows by scan, mask and acceleration, which are not evaluated again.

    Yields
    ------
    row : ScanScore
    comparison : Comparison or None
        Images of the slice with the least gain; None for a known row.
    """
    for scan in scans:
        evaluations: dict[int, Evaluation] = {}
        for mask, factor in cases(scan.coils, masks, accelerations):
            if row := known.get((scan.name, mask, factor)):
                yield row, None
                continue
            scores: list[MethodScore] = []
            worst: tuple[float, Comparison] | None = None
            try:
                for index, kspace in scan.slices.items():
                    if index not in evaluations:
                        evaluations[index] = Evaluation(kspace, index, calibration, axis, true)

                    def announce(method: str, index: int = index) -> None:
                        before(scan, mask, factor, index, method)  # noqa: B023

                    found, comparison = evaluations[index].run(
                        mask, factor, reconstruct, seed, announce
                    )
                    scores += found
                    gain = _gain({score.method: score.psnr for score in found})
                    if worst is None or gain < worst[0]:
                        worst = gain, comparison
            # a failure must not end a run of hours
            except Exception as error:
                reason = _reason(error)
                logger.warning("%s, %s, R = %g: %s", scan.name, mask, factor, reason)
                logger.debug("%s", scan.name, exc_info=True)
                yield ScanScore(scan.name, mask, factor, list(scan.slices), error=reason), None
            else:
                yield _row(scan, mask, factor, scores), worst[1] if worst else None


def summary(rows: Sequence[ScanScore]) -> dict[str, Any]:
    """Summarise all scans: medians, worst values, and the fraction of calibrated rows.

    Parameters
    ----------
    rows : sequence of ScanScore

    Returns
    -------
    dict
    """
    columns = {
        name: _known(rows, lambda row, name=name: getattr(row, name))  # type: ignore[misc]
        for name in ("gain", "psnr_fixed_lambda", "gain_interval", *AVERAGED)
    }
    medians: dict[str, Any] = {name: _median(values) for name, values in columns.items()}
    for name in OF_METHODS:
        medians[name] = {
            method: _median(_known(rows, lambda row: getattr(row, name).get(method)))  # noqa: B023
            for method in METHODS
        }
    return {
        "rows": len(rows),
        "failed": sum(bool(row.error) for row in rows),
        "without_samples": sum(bool(row.fallback) for row in rows),
        "median": medians,
        "worst_gain": min(columns["gain"], default=None),
        "mean_gain": float(np.mean(columns["gain"])) if columns["gain"] else None,
        "mean_gain_interval": _interval(_of_scans(rows)),
        # by the logarithm: 0.5 is as bad as 2
        "worst_sd_to_error": max(
            columns["sd_to_error"], key=lambda ratio: abs(np.log(ratio)), default=None
        ),
        "share_sd_to_error": _share(columns["sd_to_error"], HONEST_RATIO),
        "share_coverage_90": _share(columns["coverage_90"], HONEST_COVERAGE),
    }


def _row(scan: FullScan, mask: str, factor: float, scores: list[MethodScore]) -> ScanScore:
    by_method = {method: [s for s in scores if s.method == method] for method in METHODS}
    ours = by_method[POSTERIOR_MEAN]

    def of_methods(name: str) -> dict[str, float]:
        return {
            method: float(np.mean([getattr(score, name) for score in group]))
            for method, group in by_method.items()
        }

    def averaged(name: str) -> float | None:
        values = [getattr(score, name) for score in ours]
        # a ratio to an error of zero is infinite
        return None if None in values or not np.isfinite(values).all() else float(np.mean(values))

    values: dict[str, Any] = {name: averaged(name) for name in AVERAGED}
    values |= {name: of_methods(name) for name in OF_METHODS}
    return ScanScore(
        scan.name,
        mask,
        factor,
        list(scan.slices),
        gain=_gain(values["psnr"]),
        psnr_fixed_lambda=_mean([s.psnr_fixed_lambda for s in by_method[L1_WAVELET]]),
        gain_interval=_interval(
            [a.psnr - b.psnr for a, b in zip(ours, by_method[L1_WAVELET], strict=True)]
        ),
        reference=max((score.reference for score in ours), key=REFERENCES.index),
        fallback=", ".join(dict.fromkeys(score.note for score in ours if score.note)),
        scores=scores,
        **values,
    )


def _gain(psnr: dict[str, float]) -> float:
    return psnr[POSTERIOR_MEAN] - psnr[L1_WAVELET]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _interval(values: Sequence[float]) -> float | None:
    """Return half the 95 % interval of the mean, or None for fewer than two values."""
    half_width = interval(values)
    return half_width if np.isfinite(half_width) else None


def _of_scans(rows: Sequence[ScanScore]) -> list[float]:
    """Return the mean gain of each scan, whose rows are not independent."""
    gains = {row.scan: [r.gain for r in rows if r.scan == row.scan] for row in rows}
    return [mean for group in gains.values() if (mean := _mean(group)) is not None]


def _known(rows: Sequence[ScanScore], value: Callable[[ScanScore], float | None]) -> list[float]:
    return [known for row in rows if (known := value(row)) is not None]


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _share(values: list[float], within: tuple[float, float]) -> float | None:
    low, high = within
    return float(np.mean([low <= value <= high for value in values])) if values else None


def _reason(error: Exception) -> str:
    """Format an error in one line, with the type of an unexpected one."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
