"""Frame: the k-space of one image with its geometry, passed from stage to stage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace
from scoremri_core.scans.flags import COUNTERS

if TYPE_CHECKING:
    from scoremri_core.recon.calibrate import Calibrated

logger = logging.getLogger(__name__)


@dataclass
class Frame:
    """K-space, geometry and state of one image, slice or volume.

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
    autocalibrated : bool
        Whether the frame contains its calibration lines.
    index : int
        Number of the frame in its stream, from 0.
    calibrated : Calibrated or None
        Coil maps and noise of a slice, once estimated.
    coil_loss : float or None
        Fraction of the signal energy lost by coil compression.
    problem : str or None
        Reason why the frame cannot be sampled.
    seconds : dict of float
        Time of each stage; of sampling in a batch, the share of the frame.
    together : bool
        Whether the frame was sampled in a batch with others.
    interval : float32 array, (slice, 2, y, x), or None
        Lower and upper bound of the magnitude, with a guarantee.
    guarantee, guarantee_refused : str or None
        Protocol of the guarantee, or why the frame has no interval.
    """

    kspace: KSpace
    header: ismrmrd.AcquisitionHeader
    recon_shape: tuple[int, ...]
    fov_fraction: tuple[float, ...]
    field_of_view: tuple[float, float, float]
    autocalibrated: bool = False
    index: int = -1
    calibrated: Calibrated | None = None
    coil_loss: float | None = None
    problem: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    together: bool = False
    interval: NDArray[np.float32] | None = None
    guarantee: str | None = None
    guarantee_refused: str | None = None

    @property
    def is_volume(self) -> bool:
        """Whether the frame is a 3D volume."""
        return self.kspace.is_volume

    @property
    def identity(self) -> str:
        """Number and counters of the frame, for log lines."""
        counters = " ".join(f"{name} {getattr(self.header.idx, name)}" for name in COUNTERS)
        return f"frame {self.index} ({counters})"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Record an exception as the problem of this frame, so that the stream continues."""
        try:
            yield
        except Exception as error:
            expected = isinstance(error, InputError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            logger.warning("%s cannot be sampled: %s", self.identity, reason)
            logger.debug("%s", self.identity, exc_info=error)
            self.problem = self.problem or reason

    def seed(self, seed: int) -> int:
        """Derive the seed of the frame from that of the node and the counters of the frame.

        Frames with equal random numbers would have correlated errors. The seed does not depend on
        the order of frames or on batches; a frame whose counters are all 0 has the node's seed.
        """
        from scoremri_core.samplers.random_numbers import derived_seed

        seed %= 2**63
        counters = [getattr(self.header.idx, name) for name in COUNTERS]
        return derived_seed(seed, *counters) if any(counters) else seed
