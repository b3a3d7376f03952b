"""What every method is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremri_core.mri.classical import zero_filled
from scoremri_core.mri.sampling import measured

Image = NDArray[np.complex64]


@dataclass(frozen=True)
class Problem:
    """One undersampled slice.

    Attributes
    ----------
    kspace : (coil, y, x), centred, zero where not measured.
    maps : (coil, y, x), from its calibration region, sum |S|^2 = 1.
    seed : of all that a method draws.
    """

    kspace: Image
    maps: Image
    seed: int = 0

    @cached_property
    def zero_filled(self) -> Image:
        """The zero-filled image (y, x)."""
        return zero_filled(self.kspace, self.maps)

    @cached_property
    def scale(self) -> float:
        """The 99th percentile of the zero-filled image, which networks see as 1."""
        return float(np.percentile(np.abs(self.zero_filled), 99)) or 1.0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which samples (y, x) were measured."""
        return measured(self.kspace)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """K-space over the scale and maps, (1, coil, y, x), and mask (1, y, x)."""
        arrays = (self.kspace / np.float32(self.scale), self.maps, self.mask)
        kspace, maps, mask = (torch.from_numpy(a)[None].to(device) for a in arrays)
        return kspace, maps, mask
