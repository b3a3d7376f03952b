"""One undersampled slice, the input of every method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
    kspace : complex64 array, (coil, y, x)
        Centred, zero where not sampled.
    maps : complex64 array, (coil, y, x)
        Estimated from the calibration region, sum |S|^2 = 1.
    seed : int
        Of all random numbers of a method.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H]; estimated by the methods that need it if None.
    """

    kspace: Image
    maps: Image
    seed: int = 0
    noise_covariance: NDArray[Any] | None = None

    @cached_property
    def zero_filled(self) -> Image:
        """The zero-filled image, (y, x)."""
        return zero_filled(self.kspace, self.maps)

    @cached_property
    def scale(self) -> float:
        """The 99th percentile of the zero-filled image, which networks see as 1."""
        return float(np.percentile(np.abs(self.zero_filled), 99)) or 1.0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Sampling mask, (y, x)."""
        return measured(self.kspace)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return k-space over `scale` and maps, (1, coil, y, x), and the mask, (1, y, x)."""
        arrays = (self.kspace / np.float32(self.scale), self.maps, self.mask)
        kspace, maps, mask = (torch.from_numpy(a)[None].to(device) for a in arrays)
        return kspace, maps, mask
