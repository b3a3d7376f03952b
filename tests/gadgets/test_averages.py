"""Noise of lines with different numbers of averages."""

import numpy as np
import pytest
from synthetic import acquisitions, header, letter, measured_noise, noise_readout, parsed

import scoremri_core
from gadgets.score_recon import images as image_stream
from gadgets.stages.accumulate import accumulate
from gadgets.stages.coil_maps import add_coil_maps
from gadgets.stages.posterior import posterior
from gadgets.stages.properties import Properties
from scoremri_core.recon.memo import Memo

SHAPE, SIGMA = (24, 20), 0.01
LINES = range(SHAPE[0])
BANDWIDTH = 0.8  # of the header


def measured(*averages, noise="auto"):
    """Return sigma_thermal and k-space of an image whose n-th average has the given lines."""
    properties = Properties(sampler="none", device="cpu", noise=noise)
    scan = [noise_readout(SIGMA * np.sqrt(BANDWIDTH), samples=50_000)]
    for number, steps in enumerate(averages):
        scan += acquisitions(letter(*SHAPE), noise=SIGMA, seed=number, steps=steps, average=number)
    frames = list(accumulate(scan, parsed(header(*SHAPE, averages=len(averages))), properties))
    (frame,) = frames
    (image,) = image_stream([frames], properties)
    return float(image.meta["sigma_thermal"]), frame.kspace.array


@pytest.mark.parametrize("count", [1, 2, 4])
def test_noise_with_equal_averages(count):
    sigma, _ = measured(*[LINES] * count)
    assert sigma == pytest.approx(SIGMA / np.sqrt(count), rel=0.02)


@pytest.mark.parametrize("often", [range(8, 16), range(0, 24, 2), range(1, 24)])
def test_noise_with_unequal_averages_is_that_of_the_least_averaged_lines(often):
    sigma, kspace = measured(LINES, often, often, often)
    assert sigma == pytest.approx(SIGMA, rel=0.02)
    # the values are means in any case
    single, plain = measured(LINES)
    truth = measured(*[LINES] * 200)[1]
    errors = [np.abs(k[:, often] - truth[:, often]).std() for k in (kspace, plain)]
    assert errors[0] / errors[1] == pytest.approx(0.5, rel=0.15)
    assert single == pytest.approx(SIGMA, rel=0.02)


def test_two_and_three_averages_count_as_two():
    assert measured(LINES, LINES, range(4, 9))[0] == pytest.approx(SIGMA / np.sqrt(2), rel=0.02)


class Shrinking:
    """A fast prior."""

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


def test_stream_weights_averages_as_reconstruct_does():
    often = range(8, 16)
    properties = Properties(samples=2, steps=3, seed=3, prior=Shrinking(), device="cpu")
    scan = [noise_readout(SIGMA * np.sqrt(BANDWIDTH), samples=50_000)]
    for number, steps in enumerate([LINES, often, often, often]):
        scan += acquisitions(letter(*SHAPE), noise=SIGMA, seed=number, steps=steps, average=number)
    (frame,) = accumulate(scan, parsed(header(*SHAPE, averages=4)), properties)
    counts = np.where(np.isin(LINES, often), 4, 1)
    np.testing.assert_array_equal(frame.kspace.averages, counts[:, None] * np.ones(SHAPE[1]))
    ((_, streamed),) = posterior([list(add_coil_maps([frame], properties, Memo()))], properties)
    options = {"prior": Shrinking(), "samples": 2, "steps": 3, "seed": 3, "device": "cpu"}
    options["noise_covariance"] = measured_noise(frame)
    weighed = scoremri_core.reconstruct(frame.kspace.array, averages=counts, **options)
    np.testing.assert_array_equal(streamed.samples, weighed.samples)
    alike = scoremri_core.reconstruct(frame.kspace.array, **options)
    assert np.abs(alike.samples - weighed.samples).max() > 1e-3
