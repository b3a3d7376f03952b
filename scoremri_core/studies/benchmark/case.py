"""What every row of the benchmark is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError

if TYPE_CHECKING:
    from scoremri_core.score.score import Score

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class Case:
    """One undersampled frame and how to reconstruct it.

    Attributes
    ----------
    name : of the scan.
    kspace : (coil, y, x), centred, zeros where not sampled.
    truth : (y, x), what a perfect reconstruction returns.
    true_acceleration : calibration lines counted.
    calibration : number of calibration lines.
    samples, steps, prior, seed : of `scoremri_core.reconstruct`.
    device : the same, but for "auto".
    frames : frames reconstructed at once in the row that batches them.
    langevin_levels : noise levels of the Langevin sampler that are run.
    mask : kind of sampling pattern, see `scoremri_core.simulation.masks.make_mask`.
    """

    name: str
    kspace: Image
    truth: Image
    true_acceleration: float
    calibration: int = 24
    samples: int = 8
    steps: int | None = None
    prior: str = "default"
    seed: int = 0
    device: str = "cpu"
    frames: int = 1
    langevin_levels: int = 2
    mask: str = "equispaced"

    @property
    def calibration_square(self) -> Image:
        """The k-space (coil, y, x) of the square of calibration samples around DC alone."""
        square = np.zeros_like(self.kspace)
        ny, nx = square.shape[1:]
        width = min(self.calibration, ny, nx)
        around = (
            slice(None),
            slice(ny // 2 - width // 2, ny // 2 - width // 2 + width),
            slice(nx // 2 - width // 2, nx // 2 - width // 2 + width),
        )
        square[around] = self.kspace[around]
        return square


@dataclass(frozen=True)
class Measurement:
    """One run of one row.

    Attributes
    ----------
    seconds : of the whole, which `parts` splits.
    evaluations : denoiser evaluations per sample.
    output : image (y, x) or coil maps (coil, y, x), or None.
    score : of the image and its samples against the truth; None if it is not known.
    memory, gpu_memory : peak in MB since the row's process began, or None where it is not known.
    note : a setting or a shortfall to be told.
    details : whatever else the row has measured.
    """

    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    evaluations: int | None = None
    output: Image | None = None
    score: Score | None = None
    memory: float | None = None
    gpu_memory: float | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def simulated(
    shape: tuple[int, int, int], acceleration: float, calibration: int, seed: int, **settings: Any
) -> Case:
    """Simulate a scan of the head phantom, undersampled but for a calibration block.

    Parameters
    ----------
    shape : (coil, y, x).
    settings : further attributes of the case.

    Raises
    ------
    InputError : numbers out of range.
    """
    from scoremri_core.scans.gridding import zero_filled_kspace
    from scoremri_core.simulation.simulation import SimulatedScan

    scan = SimulatedScan(shape[1:], shape[0], oversampling=1, seed=seed)
    kspace = zero_filled_kspace(scan)[0]
    name = f"simulated head, {_times(shape[1:])}, {shape[0]} coils"
    return _undersampled(name, kspace, scan.image[0], acceleration, calibration, seed, settings)


def from_file(
    path: Path, index: int, acceleration: float, calibration: int, seed: int, **settings: Any
) -> Case:
    """Undersample a slice of a fully sampled ISMRMRD file; the truth is its MVUE.

    Raises
    ------
    InputError : no such file or slice, not fully sampled, or numbers out of range.
    """
    from scoremri_core.scans.gridding import fully_sampled_kspace
    from scoremri_core.studies.evaluate.comparison import Evaluation

    kspace = fully_sampled_kspace(path)
    if not 0 <= index < len(kspace):
        raise InputError(f"{path}: slice {index}: expected 0 to {len(kspace) - 1}")
    evaluation = Evaluation(kspace[index], index, calibration)
    name = f"{path.name}, slice {index}, {_times(kspace.shape[2:])}, {kspace.shape[1]} coils"
    return _undersampled(
        name, kspace[index], evaluation.reference, acceleration, calibration, seed, settings
    )


def _undersampled(
    name: str,
    kspace: Image,
    truth: Image,
    acceleration: float,
    calibration: int,
    seed: int,
    settings: dict[str, Any],
) -> Case:
    from scoremri_core.mri.sampling import measured
    from scoremri_core.simulation.masks import make_mask

    kind = settings.get("mask", Case.mask)
    lines = make_mask(kind, kspace.shape[1:2], acceleration, calibration, seed=seed).sampled
    received = measured(kspace).any(axis=1)
    return Case(
        name,
        (kspace * lines[:, None]).astype(np.complex64),
        np.asarray(truth, np.complex64),
        float(received.sum() / (received & lines).sum()),
        calibration,
        seed=seed,
        **settings,
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
