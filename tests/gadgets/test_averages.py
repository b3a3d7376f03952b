"""Averages lower the noise, and by no more than they do in the line with the fewest of them."""

import numpy as np
import pytest
from synthetic import acquisitions, header, letter, noise_readout, parsed

from gadgets.score_recon import _images
from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from gadgets.stream.turns import Turns

SHAPE, SIGMA = (24, 20), 0.01
LINES = range(SHAPE[0])
BANDWIDTH = 0.8  # of the header


def measured(*averages, noise="auto"):
    """sigma_thermal of an image whose n-th average has the lines given, and its k-space."""
    properties = Properties(sampler="none", device="cpu", noise=noise)
    scan = [noise_readout(SIGMA * np.sqrt(BANDWIDTH), samples=50_000)]
    for number, steps in enumerate(averages):
        scan += acquisitions(letter(*SHAPE), noise=SIGMA, seed=number, steps=steps, average=number)
    frames = list(accumulate(scan, parsed(header(*SHAPE, averages=len(averages))), properties))
    (frame,) = frames
    (image,) = _images(Turns(), [frames], lambda: None, properties)
    return float(image.meta["sigma_thermal"]), frame.kspace


@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_lines_averaged_alike(count):
    sigma, _ = measured(*[LINES] * count)
    assert sigma == pytest.approx(SIGMA / np.sqrt(count), rel=0.02)


@pytest.mark.parametrize("often", [range(8, 16), range(0, 24, 2), range(1, 24)])
def test_some_lines_averaged_more_often_leave_the_noise_of_the_others(often):
    sigma, kspace = measured(LINES, often, often, often)
    assert sigma == pytest.approx(SIGMA, rel=0.02)
    # the lines are means all the same
    single, plain = measured(LINES)
    truth = measured(*[LINES] * 200)[1]
    errors = [np.abs(k[:, often] - truth[:, often]).std() for k in (kspace, plain)]
    assert errors[0] / errors[1] == pytest.approx(0.5, rel=0.15)
    assert single == pytest.approx(SIGMA, rel=0.02)


def test_two_and_three_averages_count_as_two():
    assert measured(LINES, LINES, range(4, 9))[0] == pytest.approx(SIGMA / np.sqrt(2), rel=0.02)
