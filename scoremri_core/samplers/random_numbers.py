"""Random numbers that belong to a sample, whatever it is computed with."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

BALANCED = 8  # samples whose random numbers sum to zero together


def derived_seed(seed: int, *keys: int) -> int:
    """A seed of 63 bits of its own for each seed and keys, by a hash that all bits count in."""
    low, high = _sequence(seed, *keys).generate_state(2).tolist()
    return int(high << 32 | low) % 2**63


def _sequence(seed: int, *keys: int) -> np.random.SeedSequence:
    # NumPy takes no negative ones: every second number is theirs
    return np.random.SeedSequence(2 * seed if seed >= 0 else -2 * seed - 1, spawn_key=keys)


class SampleNoise:
    """One random stream a sample, the same for every frame or, with a seed each, its own.

    Sample i of a frame is thereby the same alone or in company.  Each draw of it has a seed of its
    own from the stream of seeds of (seed, i): torch's generator on a CPU takes no more than the low
    32 bits of a seed, of which some among thousands of samples would be alike.

    Parameters
    ----------
    seed : the run's seed, or one for each frame.
    samples : number of samples.
    device : where the numbers are drawn; streams differ between kinds of device.
    """

    def __init__(self, seed: int | Sequence[int], samples: int, device: torch.device) -> None:
        self.device = device
        self.samples = samples
        self._group = BALANCED
        self._generator = torch.Generator(device)
        self._seeds = [
            [np.random.default_rng(_sequence(own, i)) for i in range(samples)]
            for own in ([seed] if isinstance(seed, int) else seed)
        ]

    def of_families(self, size: int) -> tuple[SampleNoise, list[int]]:
        """One stream for so many samples of an eight, and whose numbers each sample takes.

        Of every eight, samples i and i + 8 / size are of one family, so that the first few samples
        are of different ones.  Its stream is that of its first sample; balanced, the numbers of
        the families of an eight sum to zero.
        """
        families = BALANCED // size
        first = [i for i in range(self.samples) if i % BALANCED < families]
        heads = copy.copy(self)
        heads._seeds = [[seeds[i] for i in first] for seeds in self._seeds]
        heads.samples, heads._group = len(first), families
        whose = [i // BALANCED * families + i % BALANCED % families for i in range(self.samples)]
        return heads, whose

    def complex_normal(self, *shape: int, balanced: bool = False) -> Tensor:
        """Complex (frame or 1, sample, *shape) with sd 1 in EACH real component.

        Balanced, the numbers of samples 0 to 7 sum to zero, those of 8 to 15, and so on: each
        sample's are still white with sd 1, and to first order the means of the samples stay put.
        """
        pairs = torch.empty(len(self._seeds) * self.samples, *shape, 2, device=self.device)
        for own, seeds in zip(pairs, chain.from_iterable(self._seeds), strict=True):
            own.normal_(generator=self._seeded(seeds))
        numbers = torch.view_as_complex(pairs)
        numbers = numbers.view(len(self._seeds), self.samples, *shape)
        return _balanced(numbers, self._group) if balanced else numbers

    def _seeded(self, seeds: np.random.Generator) -> torch.Generator:
        return self._generator.manual_seed(int(seeds.integers(2**63)))


def effective_samples(samples: int, balanced: bool) -> float:
    """Independent samples whose mean would stray as much; infinite where nothing is left.

    For balanced samples that are linear in their random numbers.
    """
    if not balanced:
        return float(samples)
    rest = samples % BALANCED
    left = rest * (BALANCED - rest) / (BALANCED - 1)  # variance of the sum over a sample's
    return samples**2 / left if left else math.inf


def _balanced(numbers: Tensor, n: int) -> Tensor:
    """Independent numbers (frame, sample, ...) with a correlation of -1 / (n - 1) in each n.

    By the Cholesky factor of that covariance, so that sample i takes only what the samples up to
    it have drawn, and is the same however many follow.  In place.
    """
    for first in range(0, numbers.shape[1], n):
        group = numbers[:, first : first + n].unbind(1)
        common = torch.zeros_like(group[0])
        for i, own in enumerate(group):
            drawn = own.clone() if i < n - 1 else own
            own.mul_(math.sqrt(n / (n - 1) * (n - 1 - i) / (n - i))).add_(common)
            if i < n - 1:
                common.sub_(drawn, alpha=math.sqrt(n / (n - 1) / ((n - i) * (n - 1 - i))))
    return numbers
