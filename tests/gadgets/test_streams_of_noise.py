"""Random numbers depend on the seed of the node and on the frame only."""

import numpy as np
import pytest
from synthetic import acquisitions, header, letter, parsed

import scoremri_core
from gadgets.stages.accumulate import accumulate
from gadgets.stages.coil_maps import add_coil_maps
from gadgets.stages.emit import emit
from gadgets.stages.posterior import posterior
from gadgets.stages.properties import Properties
from scoremri_core.recon.memo import Memo
from scoremri_core.scans.flags import COUNTERS

XML = header(24, 20)
FIRST = dict.fromkeys(COUNTERS, 0)


class Shrinking:
    """A fast prior."""

    name = "shrinking"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


def sampled(*counters, seed=3):
    """Sample frames of the same k-space with these counters as one batch."""
    properties = Properties(samples=2, steps=3, seed=seed, prior=Shrinking(), device="cpu")
    scan = [
        r
        for each in counters
        for r in acquisitions(letter(24, 20), noise=0.02, **{**FIRST, **each})
    ]
    frames = list(accumulate(scan, parsed(XML), properties))
    results = list(posterior([list(add_coil_maps(frames, properties, Memo()))], properties))
    assert len(results) == len(counters)
    return [(frame, result) for frame, result in results]


@pytest.mark.parametrize("counter", COUNTERS)
def test_frames_of_the_same_data_have_independent_errors(counter):
    found = [result for _, result in sampled({}, {counter: 1}, {counter: 2})]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        differences = np.abs(found[one].samples - found[other].samples)
        assert differences.mean() > 1e-4
    assert len({result.info.seed for result in found}) == 3


def test_samples_do_not_depend_on_order_or_batch():
    other, frame = {"slice": 1, "repetition": 4}, {"slice": 4, "repetition": 1}
    (_, alone), (_, late) = sampled(frame)[0], sampled(other, {}, frame)[2]
    np.testing.assert_array_equal(alone.samples, late.samples)
    assert alone.info.seed == late.info.seed
    assert sampled(frame, seed=4)[0][1].info.seed != alone.info.seed


def test_first_frame_has_the_seed_of_the_node_and_both_are_attributes():
    pairs = sampled({}, {"slice": 7})
    images = list(emit(pairs, Properties(seed=3, outputs=("mean",))))
    assert [image.meta["seed"] for image in images] == ["3", "3"]
    assert images[0].meta["frame_seed"] == "3"
    frame, result = pairs[1]
    again = scoremri_core.reconstruct(
        frame.kspace.array,
        maps=frame.calibrated.maps,
        prior=Shrinking(),
        samples=2,
        steps=3,
        seed=int(images[1].meta["frame_seed"]),
        device="cpu",
    )
    np.testing.assert_array_equal(again.samples, result.samples)


@pytest.mark.parametrize("seed", [2**44 + 1, 2**62, 2**63 - 1, 2**63, 2**70, -1])
def test_any_seed_is_valid(seed):
    for _, result in sampled({}, {"slice": 1}, seed=seed):
        assert result.info.reason is None
        assert 0 <= result.info.seed < 2**63
