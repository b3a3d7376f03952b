"""What the networks are trained on: slices as scans of many coils, in distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.mri.classical import mvue
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.simulation.retrospective import kept_samples
from scoremri_core.simulation.simulation import loop_sensitivities
from scoremri_core.training.augment import scanned_image
from scoremri_core.training.slices import Slice

HEAD = 210.0  # mm of the field of view, in which the coils stand
NOISE = 0.01  # sd of each real component, of the image's 99th percentile

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class SimulatedSlice:
    """A slice as a scanner would have seen it.

    Attributes
    ----------
    kspace : (coil, y, x), fully sampled, with noise.
    maps : (coil, y, x), estimated from the calibration lines.
    target : (y, x), the magnitude of the MVUE of all data with these maps.
    """

    kspace: Image
    maps: Image
    target: NDArray[np.float32]


def simulated_kspace(
    image: NDArray[Any], side: int, coils: int, rng: np.random.Generator, noise: float = NOISE
) -> Image:
    """K-space (coil, side, side) of a slice seen by loops around the head, with white noise.

    Where the coils stand, how large the head is in them and their phases are random.
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
    """A pool of scanned slices, each made when it is first asked for and then kept in memory.

    Parameters
    ----------
    slices : to choose from.
    count : of the pool.
    side, coils : of the matrix and of the receiver.
    calibration, accelerations : see `kept_samples`; the latter are true ones.
    seed : the same seed makes the same pool.
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
        """One of `count`."""
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def drawn(self, step: int) -> tuple[SimulatedSlice, NDArray[np.bool_]]:
        """An example and a mask (y, x), which depend on the seed and the step alone."""
        rng = np.random.default_rng([self.seed, 1, step])
        example = self[int(rng.integers(self.count))]
        factor = self.accelerations[int(rng.integers(len(self.accelerations)))]
        received = np.ones((self.side, self.side), bool)
        return example, kept_samples(received, "equispaced", factor, self.calibration, true=True)

    def _make(self, index: int) -> SimulatedSlice:
        rng = np.random.default_rng([self.seed, 0, index])
        own = self.slices[int(rng.integers(len(self.slices)))]
        kspace = simulated_kspace(own.image, self.side, self.coils, rng)
        all_lines = np.ones((self.side, self.side), bool)
        factor = max(self.accelerations)
        lines = kept_samples(all_lines, "equispaced", factor, self.calibration, true=True)
        maps = estimate_coil_maps(kspace * lines)[0]
        return SimulatedSlice(kspace, maps, np.abs(mvue(kspace, maps)))
