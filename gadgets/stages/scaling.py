"""Scale factor of the images of a scan, for consumers that store integers."""

from __future__ import annotations

import logging

import numpy as np

from gadgets.stages.frame import Frame

logger = logging.getLogger(__name__)

TARGET = 2048.0  # of the percentile, as in AutoScaleGadget: half of the default range of 12 bits
MAX_VALUE = 32_767
PERCENTILE = 99.5


class Scale:
    """Scale factor of a scan, the same for all its images.

    Parameters
    ----------
    scale : float, "auto" or "off"
        "auto" takes the factor from the first frame with signal.

    Attributes
    ----------
    factor : float or None
        None: not scaled, or not known yet.
    """

    def __init__(self, scale: str | float) -> None:
        self.factor = None if isinstance(scale, str) else scale
        self._choose = scale == "auto"
        self._warned = False

    def update(self, frame: Frame, mean: np.ndarray) -> None:
        """Choose the factor if there is none yet; warn once if images exceed 15 bits.

        Parameters
        ----------
        frame : Frame
            For the log.
        mean : complex array, (z, y, x)
            Image of the frame.
        """
        if self.factor is None and not self._choose:
            return
        bright = float(np.percentile(np.abs(mean), PERCENTILE))
        if self._choose and 0 < bright < np.inf:
            self.factor, self._choose = TARGET / bright, False
            logger.info("%s: images are scaled by %.6g from now on", frame.identity, self.factor)
        if self.factor is not None and not self._warned and bright * self.factor > MAX_VALUE:
            self._warned = True
            logger.warning(
                "%s exceeds 15-bit integers: set scale to a number, such as %.3g",
                frame.identity, TARGET / bright,
            )  # fmt: skip
