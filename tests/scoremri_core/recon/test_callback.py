"""Progress reports of a callback during sampling."""

import numpy as np
import pytest

from scoremri_core import reconstruct
from scoremri_core.recon.reconstruction import reconstruct_volume
from scoremri_core.samplers.registry import REGISTRY

N, COILS = 24, 3
SHORT = {"langevin": {"inner_steps": 1}, "hmc": {"tuning": 2, "leapfrog": 1}}


class Shrinking:
    """A fast prior."""

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
def test_every_sampler_reports_its_noise_levels(sampler):
    reports = []
    reconstruct(
        scan(), sampler=sampler, callback=reports.append, **OPTIONS, **SHORT.get(sampler, {})
    )
    levels = reports[0].levels
    first = reports[:levels]
    assert [report.level for report in first] == list(range(1, levels + 1))
    assert levels == 4 + (2 if sampler == "hmc" else 0)
    assert {report.slices for report in reports} == {(0, 1)}
    assert [report.done for report in first] == pytest.approx(
        [i / levels for i in range(1, levels + 1)]
    )
    assert all(report.done == 1 for report in reports[levels:])  # resampling
    assert reports[-1].images().shape == (2, 2, N, N)


def test_last_reported_images_are_the_samples():
    reports = []
    kspace = 1e4 * scan()
    kspace[:, :, :6] = kspace[:, :, 18:] = 0  # sampled on a smaller grid
    result = reconstruct(
        kspace, callback=lambda progress: reports.append(progress.images()), **OPTIONS
    )
    np.testing.assert_allclose(reports[-1], result.samples, rtol=1e-5)
    assert np.abs(reports[0] - reports[-1]).max() > 1


def test_slices_that_cannot_be_sampled_count_as_done():
    kspace, reports = scan(3), []
    kspace[1] = np.nan
    reconstruct(kspace, callback=reports.append, **OPTIONS)
    assert reports[-1].done == 1
    assert {report.slices for report in reports} == {(0, 2)}


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot allocate"), MemoryError(), KeyboardInterrupt()]
)
def test_exception_in_callback_ends_the_call(error):
    calls = []

    def stop(progress):
        calls.append(progress)
        raise error

    with pytest.raises(type(error)) as raised:
        reconstruct(scan(), callback=stop, **OPTIONS)
    assert raised.value is error
    assert len(calls) == 1


def test_progress_reaches_1_after_out_of_memory():
    class OutOfMemory(Shrinking):
        def denoise(self, x, sigma):
            if len(x) > 4:
                raise MemoryError
            return super().denoise(x, sigma)

    reports = []
    reconstruct(scan(5), callback=reports.append, **{**OPTIONS, "prior": OutOfMemory()})
    assert reports[-1].done == 1
    assert {number for report in reports for number in report.slices} == set(range(5))
    assert max(len(report.slices) for report in reports) == 2


def test_volume_reports_its_positions():
    reports = []
    volume = scan(20).swapaxes(0, 1)  # (coil, z, y, x)
    options = {name: OPTIONS[name] for name in ("prior", "samples", "steps", "device")}
    reconstruct_volume(
        volume, callback=reports.append, noise_covariance=2e-4 * np.eye(3), **options
    )
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == 1
    assert {number for report in reports for number in report.slices} == set(range(20))
