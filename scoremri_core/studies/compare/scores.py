"""Scores of each method on each trial, stored on disk."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.classical import mvue, root_sum_of_squares
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.noise.covariance import covariance_from_edges
from scoremri_core.mri.sampling import measured
from scoremri_core.paths import writing
from scoremri_core.score.score import Answer, Reference, score
from scoremri_core.simulation.retrospective import kept_samples
from scoremri_core.studies.compare.trials import Scans, Trial
from scoremri_core.studies.methods.problem import Problem
from scoremri_core.studies.methods.registry import Method

logger = logging.getLogger(__name__)

REFERENCES = ("MVUE", "RSS")
REFERENCE_LINES = 24  # calibration lines of the reference's coil maps

Keep = Callable[[Trial, int, str, Answer, "Undersampled"], None]


@dataclass(frozen=True)
class TrialScore:
    """One method on one slice.

    Attributes
    ----------
    shift, label, scan, slice : str, str, str, int
        Of the trial.
    acceleration, true_acceleration : float
        As requested, and samples received over samples kept.
    method : str
        Name in tables.
    psnr, ssim, rss_psnr, rss_ssim : float or None
        Against the MVUE, and against the root sum of squares of the full data. Magnitudes, zero
        where the reference is below 5 % of its maximum.
    crps, coverage_90, sd_to_error : float or None
        Of the magnitudes of samples, against the MVUE.
    seconds, evaluations, note : float or None, int or None, str
        Of the reconstruction.
    error : str
        Reason of a failure.
    """

    shift: str
    label: str
    scan: str
    slice: int
    acceleration: float
    true_acceleration: float
    method: str
    psnr: float | None = None
    ssim: float | None = None
    rss_psnr: float | None = None
    rss_ssim: float | None = None
    crps: float | None = None
    coverage_90: float | None = None
    sd_to_error: float | None = None
    seconds: float | None = None
    evaluations: int | None = None
    note: str = ""
    error: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Unique key of the row."""
        return self.shift, self.label, self.scan, self.slice, self.method


@dataclass(frozen=True)
class Undersampled:
    """A problem with its references.

    Attributes
    ----------
    problem : Problem
    mvue, rss : array, (y, x)
        References from the full data.
    true_acceleration : float
        Samples received over samples kept.
    """

    problem: Problem
    mvue: NDArray[Any]
    rss: NDArray[Any]
    true_acceleration: float

    @classmethod
    def of(cls, kspace: NDArray[Any], trial: Trial, seed: int) -> Undersampled:
        """Undersample a fully sampled slice, and estimate coil maps from the samples kept."""
        received = measured(kspace)
        kept = kept_samples(
            received, trial.mask, trial.acceleration, trial.calibration, seed, trial.axis, True
        )
        # the reference's maps use more lines than a narrow calibration region has
        centre = kept_samples(received, "equispaced", received.shape[0], REFERENCE_LINES)
        covariance = covariance_from_edges(kspace)
        full = estimate_coil_maps(kspace * centre, noise_covariance=covariance)[0]
        maps = estimate_coil_maps(kspace * kept, noise_covariance=covariance)[0]
        problem = Problem((kspace * kept).astype(np.complex64), maps, seed)
        ratio = float(received.sum() / kept.sum())
        return cls(problem, mvue(kspace, full), root_sum_of_squares(kspace), ratio)


class Scores:
    """Scores in a file of JSON lines, which is resumed.

    Parameters
    ----------
    path : Path
    settings : mapping
        Settings of the scores, stored in the first line.

    Raises
    ------
    InputError
        A file with other settings or of another command.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[tuple[Any, ...], TrialScore] = {}
        header = json.loads(json.dumps({"settings": settings}))
        known = {field.name for field in fields(TrialScore)}
        if not path.exists():
            self._append(header)
            return
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                found = json.loads(line)
            except ValueError as error:
                if number == len(lines):  # an interrupted write
                    break
                raise InputError(f"{path}, line {number}: expected JSON") from error
            if number == 1:
                if found != header:
                    raise InputError(f"{path}: has other settings: expected another folder")
            elif not isinstance(found, dict) or set(found) != known:
                raise InputError(f"{path}, line {number}: expected a score of this command")
            elif not found["error"]:  # failures are repeated
                self._keep(TrialScore(**found))

    def add(self, row: TrialScore) -> None:
        """Add a row, and write it to disk."""
        self._append(asdict(row))
        self._keep(row)

    def run(
        self,
        scans: Scans,
        trials: Iterable[Trial],
        methods: Mapping[str, Method],
        seed: int,
        before: Callable[[str], None] = lambda what: None,
        keep: Keep = lambda *answer: None,
    ) -> None:
        """Score each method on each slice of each trial; a failure is a row with its reason.

        Parameters
        ----------
        scans : Scans
        trials : iterable of Trial
        methods : mapping of str to Method
        seed : int
            Of masks and samples.
        before : callable, optional
            Called with a description of the next reconstruction.
        keep : callable, optional
            Called with trial, slice, method, answer and the undersampled data.
        """
        for trial in trials:
            for index, kspace in scans.by_name[trial.scan].slices.items():
                place = trial.shift, trial.label, trial.scan, index
                missing = [name for name in methods if (*place, name) not in self.rows]
                if not missing:
                    continue
                given: Undersampled | None = None
                for name in missing:
                    before(f"{trial.scan}, slice {index}, {trial.label}: {name}")
                    begun = time.perf_counter()
                    try:
                        given = given or Undersampled.of(kspace, trial, seed)
                        begun = time.perf_counter()
                        answer = methods[name](given.problem)
                        seconds = time.perf_counter() - begun
                        found = scored(answer, given) | {"seconds": seconds}
                        keep(trial, index, name, answer, given)
                    # a failure must not end a run of hours
                    except Exception as error:
                        logger.warning("%s, %s, %s: %s", trial.scan, trial.label, name, error)
                        logger.debug("%s", name, exc_info=True)
                        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
                    ratio = given.true_acceleration if given else trial.acceleration
                    self.add(TrialScore(*place, trial.acceleration, ratio, name, **found))

    def _keep(self, row: TrialScore) -> None:
        self.rows[row.key] = row

    def _append(self, line: Mapping[str, Any]) -> None:
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def scored(answer: Answer, given: Undersampled) -> dict[str, Any]:
    """Return the scores of a row against both references."""
    ours, rss = (score(answer, Reference(image)) for image in (given.mvue, given.rss))
    return {
        "evaluations": answer.evaluations,
        "note": answer.note,
        "psnr": ours.masked_psnr,
        "ssim": ours.masked_ssim,
        "rss_psnr": rss.masked_psnr,
        "rss_ssim": rss.masked_ssim,
        "crps": ours.crps,
        "coverage_90": ours.coverage_90,
        "sd_to_error": ours.sd_to_error,
    }
