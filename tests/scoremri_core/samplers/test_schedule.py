"""The default sampler's noise levels."""

import numpy as np
import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.samplers.posterior import PosteriorOptions
from scoremri_core.samplers.schedule import schedule

UNKNOWN = float("inf")


def levels(sd, **options):
    found = schedule(torch.tensor([sd]), PosteriorOptions(**options))
    return [float(level.sigma[0]) for level in found], [level.group for level in found]


@pytest.mark.parametrize(
    ("sd", "first", "last"),
    [
        (0.03, 0.36, 0.012),
        (0.02, 0.24, 0.01),  # no prior knows less noise
        (0.001, 0.1, 0.01),
        (0.3, 2.0, 0.015),  # or more
        (50.0, 2.0, 0.015),
        (UNKNOWN, 2.0, 0.01),
    ],
)
def test_it_begins_and_ends_by_what_the_measurements_leave_open(sd, first, last):
    sigmas, _ = levels(sd)
    assert sigmas[0] == pytest.approx(first)
    assert sigmas[-1] == pytest.approx(last)
    np.testing.assert_allclose(np.diff(np.log(sigmas)), np.log(last / first) / 11, rtol=1e-4)


def test_given_levels_are_kept():
    sigmas, groups = levels(0.05, steps=3, sigma_max=1.0, sigma_min=0.1)
    assert (sigmas[0], sigmas[-1]) == pytest.approx((1.0, 0.1))
    assert groups == [1, 1, 1]
    with pytest.raises(InputError, match="sigma_min"):
        levels(0.05, sigma_max=0.1, sigma_min=0.2)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 30])
def test_samples_part_and_end_alone(steps):
    _, groups = levels(0.05, steps=steps)
    assert groups == sorted(groups, reverse=True)
    assert groups[-1] == 1
    assert len(groups) == steps


def test_the_first_levels_are_shared_by_balanced_samples_alone():
    assert levels(0.05)[1] == [4] * 6 + [2] * 3 + [1] * 3
    assert set(levels(0.05, balanced=False)[1]) == {1}
    assert set(levels(UNKNOWN)[1]) == {1}
    # of levels that end elsewhere it is not known which are forgotten
    assert set(levels(0.05, sigma_min=0.001)[1]) == {1}


def test_a_frame_has_its_levels_alone_and_in_company():
    together = schedule(torch.tensor([0.01, 0.05, 0.4]), PosteriorOptions())
    for i, sd in enumerate((0.01, 0.05, 0.4)):
        sigmas, groups = levels(sd)
        assert [float(level.sigma[i]) for level in together] == sigmas
        assert [level.group for level in together] == groups
