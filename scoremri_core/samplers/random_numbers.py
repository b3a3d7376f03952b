"""Random numbers per sample, independent of the batch."""

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
    """Hash a seed and keys to a seed of 63 bits.

    Parameters
    ----------
    seed : int
    *keys : int

    Returns
    -------
    int
    """
    low, high = _sequence(seed, *keys).generate_state(2).tolist()
    return int(high << 32 | low) % 2**63


def _sequence(seed: int, *keys: int) -> np.random.SeedSequence:
    # NumPy accepts no negative seeds: map them to the odd numbers
    return np.random.SeedSequence(2 * seed if seed >= 0 else -2 * seed - 1, spawn_key=keys)


class SampleNoise:
    """Random streams, one per sample, so that a sample does not depend on the batch.

    Each draw takes a new seed from the stream of (seed, i): torch's CPU generator uses only the low
    32 bits of a seed, too few for thousands of samples.

    Parameters
    ----------
    seed : int or sequence of int
        One for all frames, which then share their numbers, or one per frame.
    samples : int
        Number of samples.
    device : torch.device
        Where the numbers are drawn; streams differ between kinds of device.
    """

    def __init__(self, seed: int | Sequence[int], samples: int, device: torch.device) -> None:
        self.device = device
        self.samples = samples
        self._group = BALANCED
        self._generator = torch.Generator(device)
        self._seeds = [
            [np.random.default_rng(_sequence(frame_seed, i)) for i in range(samples)]
            for frame_seed in ([seed] if isinstance(seed, int) else seed)
        ]

    def grouped(self, size: int) -> tuple[SampleNoise, list[int]]:
        """Return one stream per group of samples, and the group of each sample.

        Of every eight samples, i and i + 8 / size are in one group, so that the first samples are
        in different groups. A group takes the stream of its first sample; if balanced, the numbers
        of the groups of eight samples sum to zero.

        Parameters
        ----------
        size : int
            Samples per group: a divisor of 8.

        Returns
        -------
        noise : SampleNoise
            One stream per group.
        group_of : list of int
            Index of each sample's group.
        """
        groups = BALANCED // size
        first = [i for i in range(self.samples) if i % BALANCED < groups]
        grouped = copy.copy(self)
        grouped._seeds = [[seeds[i] for i in first] for seeds in self._seeds]
        grouped.samples, grouped._group = len(first), groups
        group_of = [i // BALANCED * groups + i % BALANCED % groups for i in range(self.samples)]
        return grouped, group_of

    def complex_normal(self, *shape: int, balanced: bool = False) -> Tensor:
        """Draw complex normal numbers with sd 1 in each real component.

        Parameters
        ----------
        *shape : int
        balanced : bool, optional
            Let the numbers of samples 0 to 7 sum to zero, those of 8 to 15, and so on. Each
            sample's numbers are still white with sd 1; to first order they leave the mean of the
            samples unchanged.

        Returns
        -------
        complex64 tensor, (frame or 1, sample, *shape)
        """
        pairs = torch.empty(len(self._seeds) * self.samples, *shape, 2, device=self.device)
        for pair, seeds in zip(pairs, chain.from_iterable(self._seeds), strict=True):
            pair.normal_(generator=self._seeded(seeds))
        numbers = torch.view_as_complex(pairs)
        numbers = numbers.view(len(self._seeds), self.samples, *shape)
        return _balanced(numbers, self._group) if balanced else numbers

    def _seeded(self, seeds: np.random.Generator) -> torch.Generator:
        return self._generator.manual_seed(int(seeds.integers(2**63)))


def effective_samples(samples: int, balanced: bool) -> float:
    """Return the number of independent samples whose mean has the same variance.

    Balanced samples are taken to be linear in their random numbers.

    Parameters
    ----------
    samples : int
    balanced : bool

    Returns
    -------
    float
        Infinite for a multiple of 8 balanced samples.
    """
    if not balanced:
        return float(samples)
    rest = samples % BALANCED
    variance = rest * (BALANCED - rest) / (BALANCED - 1)  # of the sum, over that of one sample
    return samples**2 / variance if variance else math.inf


def _balanced(numbers: Tensor, n: int) -> Tensor:
    """Correlate each n samples of (frame, sample, ...) by -1 / (n - 1), in place.

    Uses the Cholesky factor of that covariance, so that sample i depends only on the samples up to
    it.
    """
    for first in range(0, numbers.shape[1], n):
        group = numbers[:, first : first + n].unbind(1)
        common = torch.zeros_like(group[0])
        for i, sample in enumerate(group):
            drawn = sample.clone() if i < n - 1 else sample
            sample.mul_(math.sqrt(n / (n - 1) * (n - 1 - i) / (n - i))).add_(common)
            if i < n - 1:
                common.sub_(drawn, alpha=math.sqrt(n / (n - 1) / ((n - i) * (n - 1 - i))))
    return numbers
