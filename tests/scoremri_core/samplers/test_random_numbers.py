"""Random numbers of samples: seeds, streams, and what balanced ones have in common."""

import numpy as np
import pytest
import torch

from scoremri_core.samplers.random_numbers import SampleNoise, derived_seed, effective_samples


@pytest.mark.parametrize("seed", [0, 2**31, 2**32, 2**44 + 1, 2**63, 2**100, -1])
def test_all_bits_of_a_seed_count(seed):
    def drawn(own, samples=2):
        return SampleNoise(own, samples, torch.device("cpu")).complex_normal(50)[0]

    one = drawn(seed)
    others = [seed ^ 1 << bit for bit in (0, 24, 31, 32, 40, 62)]
    for other in [drawn(own) for own in others] + [one.flip(0)]:
        assert float((one - other).abs().min()) > 0
    torch.testing.assert_close(drawn(seed, 1), one[:1], rtol=0, atol=0)


def test_samples_of_neighbouring_seeds_do_not_meet():
    """Sample i of seed s is not sample j of another, as where one is added to the other."""
    first = [
        SampleNoise(seed * factor, 8, torch.device("cpu")).complex_normal(1)[0, :, 0]
        for factor in (1, 1_000_003, 2**24, 2**32)
        for seed in range(1, 30)
    ]
    assert len(torch.cat(first).real.unique()) == 4 * 29 * 8


def test_derived_seeds_are_all_different():
    seeds = [derived_seed(seed, *keys) for seed in (0, 1, 2**40, 2**62 + 1) for keys in KEYS]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


KEYS = [
    (),
    *((i,) for i in range(200)),
    *((i, 0) for i in range(200)),
    *((0, i) for i in range(1, 9)),
]


def test_sample_noise_has_unit_components_and_belongs_to_the_sample():
    three = SampleNoise(5, 3, torch.device("cpu")).complex_normal(2, 100, 100)
    two = SampleNoise(5, 2, torch.device("cpu")).complex_normal(2, 100, 100)
    torch.testing.assert_close(three[:, :2], two, rtol=0, atol=0)
    assert three.real.std() == pytest.approx(1, abs=0.01)
    assert three.imag.std() == pytest.approx(1, abs=0.01)
    assert abs((three[0, 0] * three[0, 1].conj()).mean()) < 0.03


def test_families_take_the_streams_of_their_first_samples():
    alone = SampleNoise(5, 11, torch.device("cpu"))
    heads, whose = SampleNoise(5, 11, torch.device("cpu")).grouped(4)
    assert whose == [0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2]
    numbers = heads.complex_normal(200, 200)
    of_samples = alone.complex_normal(200, 200)
    torch.testing.assert_close(numbers, of_samples[:, [0, 1, 8, 9]], rtol=0, atol=0)
    for size, samples in ((2, 5), (4, 1), (1, 3)):
        heads, whose = SampleNoise(5, samples, torch.device("cpu")).grouped(size)
        assert whose == list(range(samples))[: 8 // size] + list(range(samples - 8 // size))
        assert heads.samples == min(samples, 8 // size)


def test_balanced_families_of_an_eight_sum_to_zero():
    heads, _ = SampleNoise(5, 9, torch.device("cpu")).grouped(4)
    numbers = heads.complex_normal(200, 200, balanced=True)[0].flatten(1)
    torch.testing.assert_close(numbers[0], -numbers[1])
    correlation = (numbers @ numbers.mH / numbers.shape[1] / 2).real
    expected = torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(correlation, expected, rtol=0, atol=0.02)


def test_balanced_noise_sums_to_zero_and_is_white_for_each_sample():
    eighteen = SampleNoise(5, 18, torch.device("cpu")).complex_normal(200, 200, balanced=True)
    three = SampleNoise(5, 3, torch.device("cpu")).complex_normal(200, 200, balanced=True)
    torch.testing.assert_close(eighteen[:, :3], three, rtol=0, atol=0)
    for eight in (eighteen[0, :8], eighteen[0, 8:16]):
        torch.testing.assert_close(eight.sum(0), torch.zeros(200, 200, dtype=torch.complex64))
    own = eighteen[0].flatten(1)
    correlation = (own @ own.mH / own.shape[1] / 2).real
    expected = torch.eye(18)
    for group in (slice(8), slice(8, 16), slice(16, 18)):
        expected[group, group] = -1 / 7
    expected.fill_diagonal_(1)
    torch.testing.assert_close(correlation, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("samples", [1, 2, 5, 8, 13, 16])
def test_effective_samples_are_those_of_the_correlation(samples):
    correlation = np.eye(samples)
    for first in range(0, samples, 8):
        correlation[first : first + 8, first : first + 8] = -1 / 7
    np.fill_diagonal(correlation, 1)
    share = correlation.sum() / samples**2
    assert 1 / effective_samples(samples, True) == pytest.approx(share, abs=1e-12)
    assert effective_samples(samples, False) == samples
