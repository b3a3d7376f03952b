"""The number of an image within its series."""

from __future__ import annotations

from typing import Any

from gadgets.stages.frame import Frame
from scoremri_core.scans.encoding import numbered
from scoremri_core.scans.flags import SLOWEST_FIRST


class ImageNumbers:
    """Numbers of the images of a scan, from 1, as Gadgetron's generic reconstructions count.

    The counters of a frame and the limits that the header gives them make the number, so that it
    does not depend on the order in which frames are complete.  Where the limits are not those of
    the scan, a frame takes the next number that nobody had.

    Parameters
    ----------
    header : the ISMRMRD header; None has no limits.
    """

    def __init__(self, header: Any = None) -> None:
        """Start a scan."""
        spaces = [None] if header is None else [each.encodingLimits for each in header.encoding]
        self._counts = [[_count(space, name) for name in SLOWEST_FIRST] for space in spaces]
        self._taken: set[int] = set()
        self._highest = 0

    def of(self, frame: Frame, partitions: int) -> int:
        """Number of a frame; a volume counts as many as it has partitions."""
        head = frame.header
        counts = numbered(self._counts, head.encoding_space_ref)
        number, known = 0, True
        for name, count in zip(SLOWEST_FIRST, counts, strict=True):
            counter = getattr(head.idx, name)
            known &= counter < count or name == SLOWEST_FIRST[0]  # nothing is counted beyond it
            number = number * count + counter
        number = number * partitions + 1
        if not known or number in self._taken:
            number = self._highest + 1
        self._taken.add(number)
        self._highest = max(self._highest, number)
        return number


def _count(limits: Any, name: str) -> int:
    limit = getattr(limits, name, None)
    return 1 if limit is None else max(int(limit.maximum), 0) + 1
