"""Training examples of the baseline networks: slices as simulated multi-coil scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.mri.classical import mvue
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.simulation.receive_coils import loop_sensitivities
from scoremri_core.simulation.retrospective import kept_samples
from scoremri_core.training.augment import scanned_image
from scoremri_core.training.slices import Slice

HEAD = 210.0  # field of view in mm, around which the coils are placed
NOISE = 0.01  # sd of each real component, over the image's 99th percentile

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class SimulatedSlice:
    """A simulated scan of a slice.

    Attributes
    ----------
    kspace : complex64 array, (coil, y, x)
        Fully sampled, with noise.
    maps : complex64 array, (coil, y, x)
        Estimated from the calibration lines.
    target : float32 array, (y, x)
        Magnitude of the MVUE of all data with these maps.
    """

    kspace: Image
    maps: Image
    target: NDArray[np.float32]


def simulated_kspace(
    image: NDArray[Any], side: int, coils: int, rng: np.random.Generator, noise: float = NOISE
) -> Image:
    """Simulate k-space of a slice with loop coils around the head and white noise.

    Position and phase of the coils and the size of the head are random.

    Parameters
    ----------
    image : real or complex array, (y, x)
    side : int
        Matrix size.
    coils : int
    rng : numpy.random.Generator
    noise : float, optional
        Sd of each real component, over the image's 99th percentile.

    Returns
    -------
    complex64 array, (coil, side, side)
    """
    x = scanned_image(image, side, rng)
    middle = rng.uniform(-10, 10, 2)
    pixel = rng.uniform(0.9, 1.15) * HEAD / side
    rows, columns = ((np.arange(side) - side // 2) * pixel + shift for shift in middle)
    maps = loop_sensitivities(rows, columns, rng.uniform(-40, 40), coils)
    maps = maps * np.exp(2j * np.pi * rng.uniform(size=(coils, 1, 1)))
    white = rng.standard_normal((2, coils, side, side), dtype=np.float32)
    level = noise * float(np.percentile(np.abs(x), 99))
    kspace: Image = (to_kspace(maps * x) + level * (white[0] + 1j * white[1])).astype(np.complex64)
    return kspace


class Examples:
    """A pool of simulated scans, created on first use and kept in memory.

    Parameters
    ----------
    slices : sequence of Slice
    count : int
        Size of the pool.
    side, coils : int
        Matrix size and receive coils.
    calibration : str
        See `kept_samples`.
    accelerations : sequence of float
        True accelerations.
    seed : int
        Determines the pool.
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        count: int,
        side: int,
        coils: int,
        calibration: str,
        accelerations: Sequence[float],
        seed: int,
    ) -> None:
        self.slices, self.count, self.side, self.coils = slices, count, side, coils
        self.calibration, self.accelerations, self.seed = calibration, accelerations, seed
        self._made: dict[int, SimulatedSlice] = {}

    def __getitem__(self, index: int) -> SimulatedSlice:
        """Return one of `count` examples."""
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def drawn(self, step: int) -> tuple[SimulatedSlice, NDArray[np.bool_]]:
        """Draw an example and a mask (y, x), determined by the seed and the step."""
        rng = np.random.default_rng([self.seed, 1, step])
        example = self[int(rng.integers(self.count))]
        factor = self.accelerations[int(rng.integers(len(self.accelerations)))]
        received = np.ones((self.side, self.side), bool)
        return example, kept_samples(received, "equispaced", factor, self.calibration, true=True)

    def _make(self, index: int) -> SimulatedSlice:
        rng = np.random.default_rng([self.seed, 0, index])
        drawn = self.slices[int(rng.integers(len(self.slices)))]
        kspace = simulated_kspace(drawn.image, self.side, self.coils, rng)
        all_lines = np.ones((self.side, self.side), bool)
        factor = max(self.accelerations)
        lines = kept_samples(all_lines, "equispaced", factor, self.calibration, true=True)
        maps = estimate_coil_maps(kspace * lines)[0]
        return SimulatedSlice(kspace, maps, np.abs(mvue(kspace, maps)))
