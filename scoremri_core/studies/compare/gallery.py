"""Images of one slice of each shift, kept as they come, and the figures that show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from scoremri_core.paths import replacing
from scoremri_core.score.score import Answer
from scoremri_core.studies.compare import figures
from scoremri_core.studies.compare.scores import TrialScore, Undersampled
from scoremri_core.studies.compare.trials import Scans, Trial
from scoremri_core.studies.methods.registry import Method

REFERENCE = "reference"


class Gallery:
    """A folder of images, one .npy for each method and shift.

    Parameters
    ----------
    folder : of the images.
    trials : of which the first of each shift at the acceleration `usual` is shown.
    scans : that they undersample.
    usual : acceleration.
    """

    def __init__(self, folder: Path, trials: Iterable[Trial], scans: Scans, usual: float) -> None:
        self.folder = folder
        self.shown: dict[tuple[Trial, int], str] = {}
        for trial in trials:
            name = trial.shift.replace(" ", "_")
            if name in self.shown.values():
                continue
            if trial.acceleration == usual or trial.shift == "acceleration":
                self.shown[trial, next(iter(scans.by_name[trial.scan].slices))] = name

    def keep(
        self, trial: Trial, index: int, method: str, answer: Answer, given: Undersampled
    ) -> None:
        """Keep an image where its trial is shown."""
        name = self.shown.get((trial, index))
        if name is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for what, image in ((REFERENCE, given.mvue), (method, answer.image)):
            with replacing(self._path(name, what)) as partial:
                np.save(partial, np.abs(image).astype(np.float32))

    def draw(self, output: Path, rows: Sequence[TrialScore], methods: Sequence[str]) -> list[Path]:
        """Curves, and panels of what was kept; returns the files."""
        drawn = [output / "curves.png"]
        figures.save(drawn[0], figures.curves(rows, methods))
        shown = []
        for (trial, index), name in self.shown.items():
            if not self._path(name, REFERENCE).is_file():
                continue
            images = {
                method: np.load(self._path(name, method))
                for method in methods
                if self._path(name, method).is_file()
            }
            label = trial.label.removeprefix(f"{trial.scan}, ")
            title = f"{trial.shift}: {trial.scan}, slice {index}, {label}"
            shown.append((title, np.load(self._path(name, REFERENCE)), images))
        if shown:
            drawn.append(output / "panels.png")
            figures.save(drawn[-1], figures.panels(shown))
        return drawn

    def draw_samples(self, output: Path, scans: Scans, sample: Method, seed: int) -> list[Path]:
        """Mean, sd and error of many samples, some of them enlarged, and all as an animation.

        Parameters
        ----------
        sample : draws as many as are to be shown
        """
        if not self.shown:
            return []
        trial, index = next(iter(self.shown))
        given = Undersampled.of(scans.by_name[trial.scan].slices[index], trial, seed)
        answer = self._samples(given, sample)
        if answer is None or answer.samples is None:
            return []
        samples = answer.samples
        drawn = [output / name for name in ("samples.png", "zoom.png", "samples.gif")]
        figures.save(drawn[0], figures.uncertainty(given.mvue, samples, answer.effective_samples))
        zero_filled = given.problem.zero_filled
        figures.save(drawn[1], figures.zoomed(given.mvue, zero_filled, samples))
        with replacing(drawn[2]) as partial:
            figures.animation(partial, samples)
        return drawn

    def _samples(self, given: Undersampled, sample: Method) -> Answer | None:
        path = self.folder / "samples.npz"
        if path.is_file():
            with np.load(path) as kept:
                samples = kept["samples"]
                return Answer(samples.mean(0), samples, float(kept["effective_samples"]))
        answer = sample(given.problem)
        if answer.samples is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            effective = answer.effective_samples or len(answer.samples)
            with replacing(path) as partial, partial.open("wb") as file:
                np.savez(file, samples=answer.samples, effective_samples=effective)
        return answer

    def _path(self, name: str, method: str) -> Path:
        return self.folder / f"{name}.{method.replace(' ', '_')}.npy"
