"""Timing of the denoiser within a reconstruction."""

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
    device : torch.device
        Of the prior; a GPU is synchronised before each reading.

    Attributes
    ----------
    starts, seconds : list of float
        `time.perf_counter` at the start of each call, and its duration.
    images : list of int
        Images of each call.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.starts: list[float] = []
        self.seconds: list[float] = []
        self.images: list[int] = []
        self._inside = False

    def now(self) -> float:
        """Return the time after all previous computations."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def clear(self) -> None:
        """Forget the calls so far."""
        self.starts, self.seconds, self.images = [], [], []

    def timed(self, prior: Any) -> Any:
        """Return a copy of the prior, of the same class and weights, with timed calls.

        Not a wrapper: samplers check the class and the methods of a prior.
        """
        twin = copy.copy(prior)
        for name in ("denoise", "denoise_with_variance"):
            if hasattr(twin, name):
                setattr(twin, name, self._timed(getattr(twin, name)))
        return twin

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(x: Any, sigma: Any) -> Any:
            if self._inside:  # methods of a prior may call each other
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
