"""Random numbers that belong to a sample, whatever it is computed with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BALANCED = 8  # samples whose random numbers sum to zero together


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
            [
                torch.Generator(device).manual_seed((own * 1_000_003 + i) % 2**63)
                for i in range(samples)
            ]
            for own in ([seed] if isinstance(seed, int) else seed)
        ]

    def complex_normal(self, *shape: int, balanced: bool = False) -> Tensor:
        """Complex (frame or 1, sample, *shape) with sd 1 in EACH real component.

        Balanced, the numbers of samples 0 to 7 sum to zero, those of 8 to 15, and so on: each
        sample's are still white with sd 1, and to first order the means of the samples stay put.
        """
        draws = [
            torch.randn(*shape, 2, generator=generator, device=self.device)
            for frame in self._generators
            for generator in frame
        ]
        numbers = torch.view_as_complex(torch.stack(draws))
        numbers = numbers.view(len(self._generators), self.samples, *shape)
        return _balanced(numbers) if balanced else numbers


def effective_samples(samples: int, balanced: bool) -> float:
    """Independent samples whose mean would stray as much; infinite where nothing is left.

    For balanced samples that are linear in their random numbers.
    """
    if not balanced:
        return float(samples)
    rest = samples % BALANCED
    left = rest * (BALANCED - rest) / (BALANCED - 1)  # variance of the sum over a sample's
    return samples**2 / left if left else math.inf


def _balanced(numbers: Tensor) -> Tensor:
    """Independent numbers (frame, sample, ...) with a correlation of -1/7 within each eight.

    By the Cholesky factor of that covariance, so that sample i takes only what the samples up to
    it have drawn, and is the same however many follow.  In place.
    """
    n = BALANCED
    for first in range(0, numbers.shape[1], n):
        group = numbers[:, first : first + n].unbind(1)
        common = torch.zeros_like(group[0])
        for i, own in enumerate(group):
            drawn = own.clone() if i < n - 1 else own
            own.mul_(math.sqrt(n / (n - 1) * (n - 1 - i) / (n - i))).add_(common)
            if i < n - 1:
                common.sub_(drawn, alpha=math.sqrt(n / (n - 1) / ((n - i) * (n - 1 - i))))
    return numbers
