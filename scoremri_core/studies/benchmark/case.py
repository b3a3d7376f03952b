"""Input and result of a run of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.options import option

if TYPE_CHECKING:
    from scoremri_core.score.score import Score

Image = NDArray[np.complex64]


OPTIONS = ("samples", "steps", "frames", "langevin_levels")  # of a case, for the command line


@dataclass(frozen=True)
class Case:
    """One undersampled frame and its reconstruction settings.

    Attributes
    ----------
    name : str
        Of the scan.
    kspace : complex64 array, (coil, y, x)
        Centred, zero where not sampled.
    truth : complex64 array, (y, x)
    true_acceleration : float
        Calibration lines included.
    calibration : int
        Number of calibration lines.
    samples : int
        Number of posterior samples.
    steps : int or None
        Noise levels.
    prior, seed
        See `scoremri_core.reconstruct`.
    device : str
        As for `reconstruct`, without "auto".
    frames : int
        Add a row with this number of frames in one batch.
    langevin_levels : int
        Noise levels of Langevin to run, scaled to all of them.
    mask : str
        Kind of mask, see `scoremri_core.simulation.masks.make_mask`.
    """

    name: str
    kspace: Image
    truth: Image
    true_acceleration: float
    calibration: int = 24
    samples: int = option(8, min=1)
    steps: int | None = option(None, min=1, show_default="of the sampler")
    prior: str = "default"
    seed: int = 0
    device: str = "cpu"
    frames: int = option(1, min=1)
    langevin_levels: int = option(2, min=1)
    mask: str = "equispaced"

    @property
    def calibration_square(self) -> Image:
        """K-space (coil, y, x) of the square of calibration samples around DC."""
        square = np.zeros_like(self.kspace)
        ny, nx = square.shape[1:]
        width = min(self.calibration, ny, nx)
        centre = (
            slice(None),
            slice(ny // 2 - width // 2, ny // 2 - width // 2 + width),
            slice(nx // 2 - width // 2, nx // 2 - width // 2 + width),
        )
        square[centre] = self.kspace[centre]
        return square


@dataclass(frozen=True)
class Measurement:
    """One timed run of a method.

    Attributes
    ----------
    seconds : float
        In total.
    parts : dict of str to float
        Parts of the total.
    evaluations : int or None
        Denoiser evaluations per sample.
    output : complex64 array, (y, x) or (coil, y, x), or None
        Image or coil maps.
    score : Score or None
        Of the image and its samples against the truth.
    memory, gpu_memory : float or None
        Peak in MB since the start of the process.
    note : str
        A setting or limitation.
    details : dict
        Further measurements.
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
    """Simulate an undersampled scan of the head phantom.

    Parameters
    ----------
    shape : tuple of int, (coil, y, x)
    acceleration : float
    calibration : int
        Calibration lines.
    seed : int
    **settings
        Further attributes of the case.

    Returns
    -------
    Case

    Raises
    ------
    InputError
        Values out of range.
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
    """Undersample a slice of a fully sampled ISMRMRD file, with its MVUE as the truth.

    Parameters
    ----------
    path : Path
    index : int
        Slice.
    acceleration : float
    calibration : int
        Calibration lines.
    seed : int
    **settings
        Further attributes of the case.

    Returns
    -------
    Case

    Raises
    ------
    InputError
        No such file or slice, not fully sampled, or values out of range.
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
