"""Random numbers that belong to a sample, whatever it is computed with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SampleNoise:
    """One random stream a sample, the same for every frame or, with a seed each, its own.

    Sample i of a frame is thereby the same alone or in company.

    Parameters
    ----------
    seed : the run's seed, or one for each frame.
    samples : number of samples.
    device : where the numbers are drawn; streams differ between kinds of device.
    """

    def __init__(self, seed: int | Sequence[int], samples: int, device: torch.device) -> None:
        self.device = device
        self.samples = samples
        self._generators = [
            # a large odd factor keeps the streams of neighbouring seeds apart
            [torch.Generator(device).manual_seed(own * 1_000_003 + i) for i in range(samples)]
            for own in ([seed] if isinstance(seed, int) else seed)
        ]

    def complex_normal(self, *shape: int) -> Tensor:
        """Complex (frame or 1, sample, *shape) with sd 1 in EACH real component."""
        draws = [
            torch.randn(*shape, 2, generator=generator, device=self.device)
            for frame in self._generators
            for generator in frame
        ]
        numbers = torch.view_as_complex(torch.stack(draws))
        return numbers.view(len(self._generators), self.samples, *shape)
