"""Samplers on a device that computes nothing, in place of a GPU.

Torch's meta tensors have shapes alone, and refuse to meet tensors of the CPU as those of a GPU do.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scoremri_core import load_prior
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.samplers.posterior import RESTARTS
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.samplers.registry import REGISTRY

META = torch.device("meta")
ITERATIONS = 3
OPTIONS = {"posterior": {"max_iterations": ITERATIONS}}


class Scalars(TorchDispatchMode):
    """Answers what the host asks of meta tensors, and counts how often it has to wait."""

    def __init__(self, truth):
        super().__init__()
        self.truth = truth
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            self.waits += 1
            return self.truth if args[0].dtype == torch.bool else 0.3
        return func(*args, **(kwargs or {}))


class Foreign:
    def denoise(self, x, sigma):
        return x / (1 + sigma.view(-1, 1, 1) ** 2)


class Generator:
    def __init__(self, device):
        assert device == META

    def manual_seed(self, seed):
        return None


@pytest.fixture
def no_autocast(monkeypatch):
    """Neither it nor a generator knows the device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "Generator", Generator)


def draw(sampler, prior, truth, frames=2, samples=3, coils=4, n=32):
    options = REGISTRY[sampler].configured(2, OPTIONS.get(sampler, {}))
    with Scalars(truth) as mode, torch.no_grad():
        maps = torch.randn(frames, 1, coils, n, n, dtype=torch.complex64, device=META)
        data = torch.randn(frames, coils, n, n, dtype=torch.complex64, device=META)
        operator = SenseOperator(maps, torch.ones(frames, n, n, dtype=torch.bool, device=META))
        noise = SampleNoise(0, samples, META)
        sigma = torch.rand(frames, device=META)
        images, _ = REGISTRY[sampler].draw(operator, data, sigma, prior, noise, options)
    return images, mode.waits


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("sampler", list(REGISTRY))
def test_all_of_a_draw_is_on_its_device(sampler, truth):
    images, _ = draw(sampler, Foreign(), truth)
    assert images.device == META
    assert images.shape == (2, 3, 1, 32, 32)


@pytest.mark.usefixtures("no_autocast")
def test_the_host_waits_for_the_device_once_an_iteration():
    frames, steps = 2, 2
    images, waits = draw("posterior", load_prior("default").to(META), True, frames)
    assert images.device == META
    # the start, again where lines contradict each other, and each step: a solve and a look at the
    # noise; besides them whether to start again, the schedule and the spectra of each frame
    solves = 1 + RESTARTS + steps
    assert waits <= solves * (ITERATIONS + 1) + 1 + frames * (2 + steps)
