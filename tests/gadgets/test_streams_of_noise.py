"""Random numbers belong to the node's seed and to the frame, whatever it is sampled with."""

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
    """A prior that is quick."""

    name = "shrinking"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


def sampled(*counters, seed=3):
    """Samples of one and the same k-space as frames of these counters, sampled together."""
    properties = Properties(samples=2, steps=3, seed=seed, prior=Shrinking(), device="cpu")
    scan = [
        r for own in counters for r in acquisitions(letter(24, 20), noise=0.02, **{**FIRST, **own})
    ]
    frames = list(accumulate(scan, parsed(XML), properties))
    results = list(posterior([list(add_coil_maps(frames, properties, Memo()))], properties))
    assert len(results) == len(counters)
    return [(frame, result) for frame, result in results]


@pytest.mark.parametrize("counter", COUNTERS)
def test_frames_of_the_same_data_err_differently(counter):
    found = [result for _, result in sampled({}, {counter: 1}, {counter: 2})]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        differences = np.abs(found[one].samples - found[other].samples)
        assert differences.mean() > 1e-4
    assert len({result.info.seed for result in found}) == 3


def test_a_frame_is_sampled_alike_however_it_comes():
    other, own = {"slice": 1, "repetition": 4}, {"slice": 4, "repetition": 1}
    (_, alone), (_, late) = sampled(own)[0], sampled(other, {}, own)[2]
    np.testing.assert_array_equal(alone.samples, late.samples)
    assert alone.info.seed == late.info.seed
    assert sampled(own, seed=4)[0][1].info.seed != alone.info.seed


def test_the_frame_without_counters_has_the_seed_itself_and_both_are_told():
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
def test_any_seed_samples(seed):
    for _, result in sampled({}, {"slice": 1}, seed=seed):
        assert result.info.reason is None
        assert 0 <= result.info.seed < 2**63
