"""How far the drawing of samples is, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Images = Callable[[], NDArray[np.complex64]]


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each noise level.

    Attributes
    ----------
    level, levels : noise levels that are done, of those that the sampler visits.
    slices : numbers of the slices that are sampled together, from 0.
    done : share of the whole call, 0 to 1; it stays where it is while slices are drawn again.
    """

    level: int
    levels: int
    slices: tuple[int, ...]
    done: float
    _images: Images = field(repr=False, compare=False)

    def images(self) -> NDArray[np.complex64]:
        """The samples as they are: complex (slice, sample, y, x), in units of the k-space.

        They still hold what the sampler leaves at this noise level.
        """
        return self._images()


Callback = Callable[[Progress], None]


class Reporter:
    """Tells a callback of every noise level.

    Parameters
    ----------
    callback : None is told nothing.
    slices : that are drawn in all.

    Attributes
    ----------
    raised : whether the callback raised, which ends the drawing whatever it was.
    """

    def __init__(self, callback: Callback | None, slices: int) -> None:
        self.raised = False
        self._callback = callback
        self._slices = max(slices, 1)
        self._drawn: set[int] = set()

    def skip(self, slices: Sequence[int]) -> None:
        """Count slices that are not drawn as done."""
        self._drawn.update(slices)

    def level(self, slices: Sequence[int], level: int, levels: int, images: Images) -> None:
        """Tell of a noise level of slices that are drawn together."""
        if level == levels:
            self._drawn.update(slices)
        if self._callback is None:
            return
        under_way = len(set(slices) - self._drawn) * level / levels
        done = min((len(self._drawn) + under_way) / self._slices, 1.0)
        try:
            self._callback(Progress(level, levels, tuple(slices), done, images))
        except BaseException:
            self.raised = True
            raise
