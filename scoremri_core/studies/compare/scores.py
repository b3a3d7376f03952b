"""Every method on every trial: a row each, kept on disk as it comes."""

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
    shift, label, scan, slice : of the trial.
    acceleration, true_acceleration : as asked for, and samples of the grid over samples taken.
    method : its name in tables.
    psnr, ssim : against the MVUE, `rss_...` against the root sum of squares of the full data, all
        of magnitudes that are zero where the reference is under 5 % of its maximum.
    crps, coverage_90, sd_to_error : of the magnitudes of samples, against the MVUE.
    seconds, evaluations, note : of the reconstruction.
    error : why there is none.
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
        """What no two rows share."""
        return self.shift, self.label, self.scan, self.slice, self.method


@dataclass(frozen=True)
class Undersampled:
    """A problem with what it came from.

    Attributes
    ----------
    problem : what methods are given.
    mvue, rss : references (y, x) of the full data.
    true_acceleration : samples that were received over those kept.
    """

    problem: Problem
    mvue: NDArray[Any]
    rss: NDArray[Any]
    true_acceleration: float

    @classmethod
    def of(cls, kspace: NDArray[Any], trial: Trial, seed: int) -> Undersampled:
        """Drop samples of a fully sampled slice, and estimate coil maps from what is left."""
        received = measured(kspace)
        kept = kept_samples(
            received, trial.mask, trial.acceleration, trial.calibration, seed, trial.axis, True
        )
        # those of the reference come from more lines than a narrow calibration block has
        centre = kept_samples(received, "equispaced", received.shape[0], REFERENCE_LINES)
        covariance = covariance_from_edges(kspace)
        full = estimate_coil_maps(kspace * centre, noise_covariance=covariance)[0]
        maps = estimate_coil_maps(kspace * kept, noise_covariance=covariance)[0]
        problem = Problem((kspace * kept).astype(np.complex64), maps, seed)
        ratio = float(received.sum() / kept.sum())
        return cls(problem, mvue(kspace, full), root_sum_of_squares(kspace), ratio)


class Scores:
    """Rows in a file of JSON lines; those that it has are not computed again.

    Parameters
    ----------
    path : of the file.
    settings : what the rows depend on: the first line; another one is refused.

    Raises
    ------
    InputError : the file is of other settings, or none of this command.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[tuple[Any, ...], TrialScore] = {}
        told = json.loads(json.dumps({"settings": settings}))
        known = {field.name for field in fields(TrialScore)}
        if not path.exists():
            self._append(told)
            return
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                found = json.loads(line)
            except ValueError as error:
                if number == len(lines):  # a write that was interrupted
                    break
                raise InputError(f"{path}, line {number}: expected JSON") from error
            if number == 1:
                if found != told:
                    raise InputError(
                        f"{path}: of other settings: expected another folder for these"
                    )
            elif not isinstance(found, dict) or set(found) != known:
                raise InputError(f"{path}, line {number}: expected a row of this command")
            elif not found["error"]:  # what failed is tried again
                self._keep(TrialScore(**found))

    def add(self, row: TrialScore) -> None:
        """Keep a row, on disk at once."""
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
        """Score every method on every slice of every trial; a failure is a row that says why.

        Parameters
        ----------
        before : called with what is about to be done
        keep : called with every answer
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
                    # hours of other trials do not end with one
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
    """The scores of a row."""
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
