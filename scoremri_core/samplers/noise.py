"""Random numbers that belong to a sample, whatever it is computed with."""

from __future__ import annotations

import torch
from torch import Tensor


class SampleNoise:
    """One random stream a sample, the same for every frame.

    Sample i of a frame is thereby the same alone or in company.

    Parameters
    ----------
    seed : the run's seed.
    samples : number of samples.
    device : where the numbers are drawn; streams differ between kinds of device.
    """

    def __init__(self, seed: int, samples: int, device: torch.device) -> None:
        self.device = device
        self.generators = [
            # a large odd factor keeps the streams of neighbouring seeds apart
            torch.Generator(device).manual_seed(seed * 1_000_003 + i)
            for i in range(samples)
        ]

    def complex_normal(self, *shape: int) -> Tensor:
        """Complex (1, sample, *shape) with sd 1 in EACH real component."""
        draws = [torch.randn(*shape, 2, generator=g, device=self.device) for g in self.generators]
        return torch.view_as_complex(torch.stack(draws))[None]
