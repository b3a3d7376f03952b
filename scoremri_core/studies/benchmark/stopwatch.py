"""How much of a reconstruction's time is its denoiser's."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch


class Stopwatch:
    """Time the calls of a prior.

    Parameters
    ----------
    device : where the prior computes; a GPU is waited for before each reading.

    Attributes
    ----------
    starts, seconds : of each call, `time.perf_counter` and its duration.
    images : number of images in each call.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.starts: list[float] = []
        self.seconds: list[float] = []
        self.images: list[int] = []
        self._inside = False

    def now(self) -> float:
        """Seconds, once everything before has been computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def clear(self) -> None:
        """Forget the calls so far."""
        self.starts, self.seconds, self.images = [], [], []

    def timed(self, prior: Any) -> Any:
        """A twin of the prior, of the same class and with the same weights, whose calls count.

        A subclass or a wrapper would not do: samplers ask what a prior is and what it offers.
        """
        twin = copy.copy(prior)
        for name in ("denoise", "denoise_with_variance"):
            if hasattr(twin, name):
                setattr(twin, name, self._timed(getattr(twin, name)))
        return twin

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(x: Any, sigma: Any) -> Any:
            if self._inside:  # one method of a prior may call another
                return method(x, sigma)
            self._inside = True
            start = self.now()
            try:
                return method(x, sigma)
            finally:
                self._inside = False
                self.starts.append(start)
                self.seconds.append(self.now() - start)
                self.images.append(len(x))

        return timed
