"""What a callback is told while samples are drawn."""

import numpy as np
import pytest

from scoremri_core import reconstruct
from scoremri_core.recon.reconstruction import reconstruct_volume
from scoremri_core.samplers.registry import REGISTRY

N, COILS = 24, 3
SHORT = {"langevin": {"inner_steps": 1}, "hmc": {"tuning": 2, "leapfrog": 1}}


class Shrinking:
    """A prior that is quick."""

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


def scan(slices=2):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    head = (y**2 + x**2 < 0.6) * np.exp(1j * x)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(head), norm="ortho"))
    noise = 0.01 * (rng.normal(size=(2, slices, COILS, N, N)))
    return (kspace / COILS**0.5 + noise[0] + 1j * noise[1]).astype(np.complex64)


MAPS = np.full((COILS, N, N), COILS**-0.5, np.complex64)
OPTIONS = {"prior": Shrinking(), "maps": MAPS, "samples": 2, "steps": 4, "device": "cpu"}


@pytest.mark.parametrize("sampler", REGISTRY)
def test_every_sampler_tells_its_noise_levels(sampler):
    told = []
    reconstruct(scan(), sampler=sampler, callback=told.append, **OPTIONS, **SHORT.get(sampler, {}))
    levels = told[0].levels
    first = told[:levels]
    assert [each.level for each in first] == list(range(1, levels + 1))
    assert levels == 4 + (2 if sampler == "hmc" else 0)
    assert {each.slices for each in told} == {(0, 1)}
    assert [each.done for each in first] == pytest.approx(
        [i / levels for i in range(1, levels + 1)]
    )
    assert all(each.done == 1 for each in told[levels:])  # drawn again
    assert told[-1].images().shape == (2, 2, N, N)


def test_the_last_images_are_the_samples_in_their_units():
    told = []
    kspace = 1e4 * scan()
    kspace[:, :, :6] = kspace[:, :, 18:] = 0  # sampled on a smaller grid
    result = reconstruct(
        kspace, callback=lambda progress: told.append(progress.images()), **OPTIONS
    )
    np.testing.assert_allclose(told[-1], result.samples, rtol=1e-5)
    assert np.abs(told[0] - told[-1]).max() > 1


def test_slices_that_cannot_be_sampled_are_not_waited_for():
    kspace, told = scan(3), []
    kspace[1] = np.nan
    reconstruct(kspace, callback=told.append, **OPTIONS)
    assert told[-1].done == 1
    assert {each.slices for each in told} == {(0, 2)}


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot allocate"), MemoryError(), KeyboardInterrupt()]
)
def test_what_a_callback_raises_ends_the_call(error):
    calls = []

    def stop(progress):
        calls.append(progress)
        raise error

    with pytest.raises(type(error)) as raised:
        reconstruct(scan(), callback=stop, **OPTIONS)
    assert raised.value is error
    assert len(calls) == 1


def test_progress_rises_where_a_batch_is_halved():
    class Small(Shrinking):
        def denoise(self, x, sigma):
            if len(x) > 4:
                raise MemoryError
            return super().denoise(x, sigma)

    told = []
    reconstruct(scan(5), callback=told.append, **{**OPTIONS, "prior": Small()})
    assert told[-1].done == 1
    assert {number for each in told for number in each.slices} == set(range(5))
    assert max(len(each.slices) for each in told) == 2


def test_a_volume_tells_its_positions():
    told = []
    volume = scan(20).swapaxes(0, 1)  # (coil, z, y, x)
    options = {name: OPTIONS[name] for name in ("prior", "samples", "steps", "device")}
    reconstruct_volume(volume, callback=told.append, noise_covariance=2e-4 * np.eye(3), **options)
    done = [each.done for each in told]
    assert done == sorted(done)
    assert done[-1] == 1
    assert {number for each in told for number in each.slices} == set(range(20))
