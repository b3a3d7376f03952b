"""Progress of sampling, reported to a callback after each noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Images = Callable[[], NDArray[np.complex64]]


@dataclass(frozen=True)
class Progress:
    """Argument of a callback, which is called after each noise level.

    Attributes
    ----------
    level : int
        Noise levels completed.
    levels : int
        Noise levels in total.
    slices : tuple of int
        Indices of the slices in the present batch, from 0.
    done : float
        Completed fraction of the whole call, 0 to 1. Does not advance while slices are resampled.
    """

    level: int
    levels: int
    slices: tuple[int, ...]
    done: float
    _images: Images = field(repr=False, compare=False)

    def images(self) -> NDArray[np.complex64]:
        """Return the samples at this noise level.

        Returns
        -------
        complex64 array, (slice, sample, y, x)
            In units of the k-space, with the noise that the sampler has not yet removed.
        """
        return self._images()


Callback = Callable[[Progress], None]


class LevelReporter:
    """Call a callback after each noise level.

    Parameters
    ----------
    callback : callable or None
        Called with a `Progress`.
    slices : int
        Number of slices in total.

    Attributes
    ----------
    raised : bool
        Whether the callback raised an exception, which ends sampling.
    """

    def __init__(self, callback: Callback | None, slices: int) -> None:
        self.raised = False
        self._callback = callback
        self._slices = slices
        self._done: set[int] = set()

    def skip(self, slices: Sequence[int]) -> None:
        """Count slices that are not sampled as done."""
        self._done.update(slices)

    def level(self, slices: Sequence[int], level: int, levels: int, images: Images) -> None:
        """Report a completed noise level of a batch of slices."""
        if level == levels:
            self._done.update(slices)
        if self._callback is None:
            return
        in_progress = len(set(slices) - self._done) * level / levels
        done = (len(self._done) + in_progress) / self._slices
        try:
            self._callback(Progress(level, levels, tuple(slices), done, images))
        except BaseException:
            self.raised = True
            raise
