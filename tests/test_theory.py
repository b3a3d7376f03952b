"""The statements of docs/theory.md, by its script."""

import importlib
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
DIMENSIONS = (2, 4, 8, 16, 32, 64)


@pytest.fixture
def theory(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("theory")


@pytest.mark.parametrize("n", DIMENSIONS)
def test_the_mass_of_the_wrong_part_is_within_its_bound(theory, n):
    for alpha in (0.5, 1e-3):
        for m in {max(1, n // 4), n // 2, n}:
            *_, wrong, bound = theory.experiment(n, m, alpha, trials=100)
            spread = np.std(wrong - bound) / 10
            assert wrong.mean() <= bound.mean() + 3 * spread


@pytest.mark.parametrize("n", DIMENSIONS)
def test_little_mass_on_the_truth_suffices(theory, n):
    """Theorem 3.4 of Jalal et al.: the price of mass alpha is log(1 / alpha) measurements."""
    for alpha in (1e-3, 1e-6):
        m = n + round(np.log(1 / alpha))
        mixed, right, *_ = theory.experiment(n, m, alpha, trials=150)
        assert np.percentile(mixed, 90) < 1.5 * np.percentile(right, 90)
    # with fewer measurements than that the wrong part prevails
    mixed, right, _, mass, _ = theory.experiment(n, max(1, n // 4), 1e-8, trials=150)
    assert np.median(mixed) > 1.3 * np.median(right)
    assert mass.mean() > 0.5


def test_the_price_is_linear_in_the_logarithm(theory):
    needed = [theory.measurements_needed(64, alpha) for alpha in (1e-2, 1e-4, 1e-6, 1e-8)]
    steps = np.diff(needed)
    assert steps.min() >= 2
    assert steps.max() - steps.min() <= 2


def test_the_path_integral_is_accurate_for_short_jumps_only(theory):
    """Ramzi et al., section 2: Simpson's rule through 4 points, on two moons of width 0.1."""
    assert theory.simpson_errors(0.02).max() < 1e-4
    assert np.percentile(theory.simpson_errors(0.1), 95) < 1e-4
    far = theory.simpson_errors(0.5)
    assert far.max() > 3
    assert np.percentile(far, 95) > 1


def test_the_figure_is_drawn(theory, monkeypatch, tmp_path):
    monkeypatch.setattr(theory, "ALPHAS", (0.5, 1e-2))
    monkeypatch.setattr(theory, "measurements_needed", lambda n, alpha: n)
    theory.main(tmp_path / "theory.png", trials=10)
    assert (tmp_path / "theory.png").read_bytes().startswith(b"\x89PNG")
