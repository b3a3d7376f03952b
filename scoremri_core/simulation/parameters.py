"""Parameters of a simulated scan."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoremri_core.errors import InputError
from scoremri_core.options import option


@dataclass(frozen=True)
class ScanParameters:
    """Parameters of a simulated scan, those of `scoremri simulate`.

    Attributes
    ----------
    matrix : tuple of int, (y, x)
        Matrix size: lines x readout samples.
    coils : int
        Number of receive coils.
    slices : int
        Number of slices.
    repetitions : int
        Number of repetitions, with independent noise.
    oversampling : int
        Readout oversampling factor.
    snr : float
        Signal of grey matter over the noise sd of each real component.
    contrast : str
        Contrast t1, t2 or flair; several as t1,t2.
    seed : int
        Random seed.
    partitions : int
        Number of partitions; 3D if above 1.
    phases : int
        Number of phases.
    sets : int
        Number of sets.
    averages : int
        Number of averages.
    segments : int
        Number of segments, interleaved line by line.
    interleaved : bool
        Interleave slices and contrasts line by line.
    alternating : bool
        Reverse every second readout.
    phase_oversampling : float
        Phase oversampling: encoded over reconstructed field of view.
    recon_matrix : tuple of int, (y, x), or None
        Reconstruction matrix in the header.
    fov : tuple of float, (y, x), or None
        Field of view in mm; the object aliases if it is smaller.

    Raises
    ------
    InputError
        A parameter is out of range.
    """

    matrix: tuple[int, int] = option((192, 192), metavar="N|YxX")
    coils: int = 8
    slices: int = 1
    repetitions: int = 1
    oversampling: int = 2
    snr: float = 30
    contrast: str = option("t2", metavar="LIST")
    seed: int = option(0, min=0)
    partitions: int = 1
    phases: int = 1
    sets: int = 1
    averages: int = 1
    segments: int = 1
    interleaved: bool = False
    alternating: bool = False
    phase_oversampling: float = 1
    recon_matrix: tuple[int, int] | None = option(None, metavar="N|YxX", show_default="--matrix")
    fov: tuple[float, float] | None = option(None, metavar="MM|YxX", show_default="the head's size")

    def __post_init__(self) -> None:
        image = self.recon_matrix or self.matrix
        for what, value, top in (
            ("matrix", min(self.matrix), 1024),
            ("matrix", max(self.matrix), 1024),
            ("recon matrix", min(image), 2048),
            ("recon matrix", max(image), 2048),
            ("coils", self.coils, 128),
            ("slices", self.slices, 30),
            ("repetitions", self.repetitions, 65535),
            ("oversampling", self.oversampling, 8),
            ("partitions", self.partitions, 256),
            ("phases", self.phases, 65535),
            ("sets", self.sets, 65535),
            ("averages", self.averages, 65535),
            ("segments", self.segments, self.matrix[0]),
        ):
            least = 16 if what.endswith("matrix") else 1
            if not least <= value <= top:
                raise InputError(f"{what} {value}: expected {least} to {top}")
        if not 0 < self.snr < math.inf:
            raise InputError(f"snr {self.snr:g}: expected a positive number")
        if not 1 <= self.phase_oversampling <= 4:
            raise InputError(f"phase oversampling {self.phase_oversampling:g}: expected 1 to 4")
        if self.partitions > 1 and self.slices > 1:
            raise InputError(f"slices {self.slices}: expected 1 in a 3D scan")
        if self.fov is not None and not all(20 <= mm <= 1000 for mm in self.fov):
            raise InputError(f"fov {self.fov[0]:g}x{self.fov[1]:g}: expected 20 to 1000 mm")
