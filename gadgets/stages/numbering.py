"""Numbers of images within their series."""

from __future__ import annotations

from typing import Any

from ismrmrd.xsd import ismrmrdHeader

from gadgets.stages.frame import Frame
from scoremri_core.scans.encoding import numbered
from scoremri_core.scans.flags import SLOWEST_FIRST


class ImageNumbers:
    """Numbers of the images of a scan, from 1, as in Gadgetron's generic reconstructions.

    The number follows from the counters of a frame and their limits in the header, so that it does
    not depend on the order in which frames are completed. A frame outside of the limits takes the
    next free number.

    Parameters
    ----------
    header : ismrmrdHeader, optional
        Default: no limits.
    """

    def __init__(self, header: ismrmrdHeader | None = None) -> None:
        spaces = [None] if header is None else [each.encodingLimits for each in header.encoding]
        self._counts = [[_count(space, name) for name in SLOWEST_FIRST] for space in spaces]
        self._taken: set[int] = set()
        self._highest = 0

    def of(self, frame: Frame, partitions: int) -> int:
        """Return the number of the first image of a frame, which has one per partition."""
        head = frame.header
        counts = numbered(self._counts, head.encoding_space_ref)
        number, known = 0, True
        for name, count in zip(SLOWEST_FIRST, counts, strict=True):
            counter = getattr(head.idx, name)
            known &= counter < count or name == SLOWEST_FIRST[0]  # the slowest needs no limit
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
