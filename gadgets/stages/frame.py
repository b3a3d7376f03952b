"""What travels between the stages: one frame of k-space with its geometry."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.scans.flags import COUNTERS

if TYPE_CHECKING:
    from gadgets.stages.calibration import Calibration

logger = logging.getLogger(__name__)


@dataclass
class Frame:
    """One image's worth of k-space, zero-filled, with DC at index n // 2 of each axis.

    Attributes
    ----------
    kspace : complex64, (coil, y, x), or (coil, z, y, x) for a volume
        On the encoded phase matrix, readout oversampling removed.
    calibration : complex64, like `kspace`, or None
        The calibration lines on the same grid; None where no line was flagged as one.
    kept_calibration : where they are no lines of the frame's own; other frames may have the same.
    noise_covariance : complex, (coil, coil), or None
        E[n n^H] of the complex noise; None where it is to be estimated from the frame.  Where
        samples were averaged unequally, that of those averaged least.
    averages : float32, (y, x) or (z, y, x), or None
        How much more often each sample was averaged than those averaged least, which have 1; 0
        where not measured.  None where all are alike.
    header : ismrmrd.AcquisitionHeader
        Of the acquisition nearest to the centre of k-space.
    recon_shape : (y, x), or (z, y, x), of the image to be sent.
    fov_fraction : field of view of the image over that of `kspace`, like `recon_shape`.
    field_of_view : (x, y, z) of the image, mm.
    index : running number of the frame in its stream, from 0.
    maps : complex64, (set, coil, y, x), or None before they are estimated, and for a volume.
    coil_loss : share of the signal's energy that coil compression left out.
    problem : why this frame cannot be sampled, or None.
    beside : images without a prior by their output, float (z, y, x), where they are asked for.
    seconds : time that each stage took; of sampling, the frame's share.
    together : whether it was sampled with others.
    """

    kspace: np.ndarray
    calibration: np.ndarray | None
    noise_covariance: np.ndarray | None
    header: Any
    recon_shape: tuple[int, ...]
    fov_fraction: tuple[float, ...]
    field_of_view: tuple[float, float, float]
    index: int = -1
    averages: np.ndarray | None = None
    kept_calibration: Calibration | None = None
    maps: np.ndarray | None = None
    coil_loss: float | None = None
    problem: str | None = None
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    together: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether the frame has partitions."""
        return self.kspace.ndim == 4

    @property
    def acceleration(self) -> float:
        """Samples of the whole matrix over those measured."""
        return float(1 / max((self.kspace != 0).any(axis=0).mean(), 1e-9))

    @property
    def identity(self) -> str:
        """Counters of the frame, for a log line."""
        counters = " ".join(f"{name} {getattr(self.header.idx, name)}" for name in COUNTERS)
        return f"frame {self.index} ({counters})"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever goes wrong within is a problem of this frame, and not of the stream."""
        try:
            yield
        except Exception as error:
            expected = isinstance(error, InputError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            logger.warning("%s cannot be sampled: %s", self.identity, reason)
            logger.debug("%s", self.identity, exc_info=error)
            self.problem = self.problem or reason

    def seed(self, seed: int) -> int:
        """The frame's own seed, of the node's seed and the frame's counters.

        Frames with the same random numbers would err alike.  That of the frame whose counters are
        all 0 is the node's own; it makes no difference when a frame comes, or with which others.
        """
        from scoremri_core.samplers.random_numbers import derived_seed

        seed %= 2**63
        counters = [getattr(self.header.idx, name) for name in COUNTERS]
        return derived_seed(seed, *counters) if any(counters) else seed
