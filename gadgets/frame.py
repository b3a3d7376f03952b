"""What travels between the stages: one frame of k-space with its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Frame:
    """One image's worth of k-space, zero-filled, with DC at index n // 2 of each axis.

    Attributes
    ----------
    kspace : complex64, (coil, y, x), or (slice, coil, y, x) for a volume
        On the encoded phase matrix, readout oversampling removed.  A volume has been transformed
        along its partition axis: each slice is a two-dimensional k-space of its own.
    calibration : complex64, (coil, y, x), or None
        The calibration lines on the same grid; None where no line was flagged as one.
    noise_covariance : complex, (coil, coil), or None
        E[n n^H] of the complex noise; None where it is to be estimated from the frame.
    header : ismrmrd.AcquisitionHeader
        Of the acquisition nearest to the centre of k-space.
    recon_shape : (y, x) of the image to be sent.
    fov_fraction : (y, x), field of view of the image over that of `kspace`.
    field_of_view : (x, y, z) of the image, mm.
    index : running number of the frame in its stream, from 0.
    maps : complex64, (set, coil, y, x), or None before they are estimated.
    problem : why this frame cannot be sampled, or None.
    """

    kspace: np.ndarray
    calibration: np.ndarray | None
    noise_covariance: np.ndarray | None
    header: Any
    recon_shape: tuple[int, int]
    fov_fraction: tuple[float, float]
    field_of_view: tuple[float, float, float]
    index: int
    maps: np.ndarray | None = None
    problem: str | None = None

    @property
    def identity(self) -> str:
        """Counters of the frame, for a log line."""
        idx = self.header.idx
        names = ("slice", "contrast", "phase", "repetition", "set")
        counters = " ".join(f"{name} {getattr(idx, name)}" for name in names)
        return f"frame {self.index} ({counters})"
