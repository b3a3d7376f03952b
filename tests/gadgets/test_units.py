"""Images scale with the units of the k-space."""

from functools import cache

import numpy as np
import pytest
from synthetic import acquisitions, header, letter, noise_readout, parsed

from gadgets.score_recon import images as image_stream
from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties

SHAPE = (32, 28)
# their squares exceed the range of float32
FACTORS = [1e-30, 1e-14, 1e14, 1e30]


class Shrinking:
    """A fast prior."""

    name = "shrinking"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


@cache
def images(factor, kind, **properties):
    partitions = 4 if kind == "volume" else 1
    defaults = {"samples": 2, "steps": 4, "prior": Shrinking(), "device": "cpu"}
    node = Properties(**{**defaults, **properties})
    scan = [noise_readout(0.01)] if kind != "estimated" else []
    for z in range(partitions):
        scan += acquisitions(
            letter(*SHAPE), noise=0.01, kspace_encode_step_2=z, last=z == partitions - 1, seed=z
        )
    for readout in scan:
        readout.data[:] *= np.float32(factor)
    frames = list(accumulate(scan, parsed(header(*SHAPE, ez=partitions)), node))
    return list(image_stream([frames], node))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("coils", [0, 3])
@pytest.mark.parametrize("sampler", ["posterior", "none"])
@pytest.mark.parametrize("kind", ["noise scan", "estimated", "volume"])
def test_images_scale_with_their_kspace(kind, sampler, coils, factor):
    plain = images(1, kind, coils=coils, sampler=sampler)
    other = images(factor, kind, coils=coils, sampler=sampler)
    assert len(plain) == len(other) == (2 if sampler == "posterior" else 1)
    for one, two in zip(plain, other, strict=True):
        assert "fallback" not in two.meta
        np.testing.assert_allclose(two.data / factor, one.data, rtol=0, atol=2e-3 * one.data.max())
        for name in ("sigma_thermal", "sigma_n", "scale", "WindowWidth"):
            ratio = float(two.meta[name]) / (factor * float(one.meta[name]))
            assert ratio == pytest.approx(1, rel=1e-2) or np.isnan(float(one.meta[name]))
