"""One factor for all images of a scan, for what keeps them as whole numbers."""

from __future__ import annotations

import logging

import numpy as np

from gadgets.stages.frame import Frame

logger = logging.getLogger(__name__)

# Gadgetron's AutoScaleGadget puts the brightest percent there too: bright pixels have a bit to
# spare in the 12 bits that its FloatTo... gadgets keep unless told otherwise, and four in 15.
BRIGHT = 2048.0
MOST = 32_767
PERCENTILE = 99.5


class Scale:
    """The factor of a scan: given, none, or chosen by its first frame.

    It stays what it is for every image, so that the mean, the standard deviation and the frames
    compare with one another.

    Parameters
    ----------
    wanted : off, auto or a number.

    Attributes
    ----------
    factor : None where there is none (yet).
    """

    def __init__(self, wanted: str | float) -> None:
        """Start a scan."""
        self.factor = None if isinstance(wanted, str) else wanted
        self._choose = wanted == "auto"
        self._told = False

    def see(self, frame: Frame, mean: np.ndarray) -> None:
        """Choose the factor by the first frame that has a signal; tell of images too bright."""
        if self.factor is None and not self._choose:
            return
        bright = float(np.percentile(np.abs(mean), PERCENTILE))
        if self._choose and 0 < bright < np.inf:
            self.factor, self._choose = BRIGHT / bright, False
            logger.info("%s: images are scaled by %.6g from here on", frame.identity, self.factor)
        if self.factor is not None and not self._told and bright * self.factor > MOST:
            self._told = True
            logger.warning(
                "%s is too bright for whole numbers of 15 bits: set scale to a number, say %.3g",
                frame.identity, BRIGHT / bright,
            )  # fmt: skip
