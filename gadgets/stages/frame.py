"""What travels between the stages: one frame of k-space with its geometry."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace
from scoremri_core.scans.flags import COUNTERS

if TYPE_CHECKING:
    from scoremri_core.recon.calibrate import Calibrated

logger = logging.getLogger(__name__)


@dataclass
class Frame:
    """One image's worth of k-space with what its image needs.

    Attributes
    ----------
    kspace : KSpace
        Of a slice or volume on the encoded phase matrix, readout oversampling removed.
    header : ismrmrd.AcquisitionHeader
        Of the acquisition nearest to the centre of k-space.
    recon_shape : tuple of int, (y, x) or (z, y, x)
        Of the image.
    fov_fraction : tuple of float
        Field of view of the image over that of `kspace`, like `recon_shape`.
    field_of_view : tuple of float
        (x, y, z) of the image, mm.
    own_calibration : bool
        Whether the lines of the frame hold its calibration.
    index : int
        Running number of the frame in its stream, from 0.
    calibrated : Calibrated or None
        Coil maps and noise of a slice, once they are estimated.
    coil_loss : float or None
        Fraction of the signal's energy lost by coil compression.
    problem : str or None
        Why this frame cannot be sampled.
    seconds : dict of float
        Time of each stage; of sampling, the frame's share.
    together : bool
        Whether it was sampled in a batch with others.
    """

    kspace: KSpace
    header: Any
    recon_shape: tuple[int, ...]
    fov_fraction: tuple[float, ...]
    field_of_view: tuple[float, float, float]
    own_calibration: bool = False
    index: int = -1
    calibrated: Calibrated | None = None
    coil_loss: float | None = None
    problem: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    together: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether the frame has partitions."""
        return self.kspace.is_volume

    @property
    def identity(self) -> str:
        """Counters of the frame, for a log line."""
        counters = " ".join(f"{name} {getattr(self.header.idx, name)}" for name in COUNTERS)
        return f"frame {self.index} ({counters})"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn an exception into a problem of this frame; the stream goes on."""
        try:
            yield
        except Exception as error:
            expected = isinstance(error, InputError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            logger.warning("%s cannot be sampled: %s", self.identity, reason)
            logger.debug("%s", self.identity, exc_info=error)
            self.problem = self.problem or reason

    def seed(self, seed: int) -> int:
        """Seed of the frame, from the seed of the node and the frame's counters.

        Frames with the same random numbers would err alike. A frame whose counters are all 0 has
        the node's seed. Order of arrival and batches make no difference.
        """
        from scoremri_core.samplers.random_numbers import derived_seed

        seed %= 2**63
        counters = [getattr(self.header.idx, name) for name in COUNTERS]
        return derived_seed(seed, *counters) if any(counters) else seed
