"""Lower bound of the time of a network evaluation: FLOPs over the machine's convolution rate."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scoremri_core.priors.network import NetworkPrior

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
MIN_SECONDS = 0.1  # of a timed run, to average over the load of the machine
COUNT = 6  # convolutions that are timed, those with most of the network's FLOPs


@dataclass(frozen=True)
class Convolution:
    """A 2D convolution of a network on images of shape (y, x)."""

    channels_in: int
    channels_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Any
    dilation: tuple[int, int]
    groups: int
    shape: tuple[int, int]

    def run(
        self, batch: int, dtype: torch.dtype, device: torch.device
    ) -> Callable[[], torch.Tensor]:
        """Return a callable that convolves random images, channels last."""
        x = torch.randn(batch, self.channels_in, *self.shape, device=device, dtype=dtype)
        weight = torch.randn(
            self.channels_out,
            self.channels_in // self.groups,
            *self.kernel,
            device=device,
            dtype=dtype,
        )
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        return lambda: F.conv2d(
            x, weight, None, self.stride, self.padding, self.dilation, self.groups
        )

    @torch.no_grad()
    def flops(self) -> int:
        """Count the floating-point operations for one image (2 per multiply-add)."""
        return count_flops(self.run(1, torch.float32, torch.device("cpu")))

    @torch.no_grad()
    def rate(self, batch: int, dtype: torch.dtype, device: torch.device) -> float:
        """Measure FLOPs per second, without transfers of images."""
        run = self.run(batch, dtype, device)
        run()
        once = _seconds(run, 1, device)
        count = max(1, math.ceil(MIN_SECONDS / once))
        return batch * count * self.flops() / _seconds(run, count, device)


def count_flops(call: Callable[[], Any]) -> int:
    """Count the floating-point operations of convolutions and matrix products in a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@torch.no_grad()
def evaluation_flops(prior: Any, shape: tuple[int, int]) -> int:
    """Count the FLOPs of one evaluation of a prior for one image (y, x), including padding."""
    x, prior = torch.zeros(1, *shape, dtype=torch.complex64), _by_layers(prior)
    return count_flops(lambda: prior.denoise(x, torch.ones(1)))


@torch.no_grad()
def heaviest_convolutions(prior: Any, shape: tuple[int, int]) -> list[Convolution]:
    """Return the convolutions of a prior with most FLOPs, for images (y, x)."""
    flops: Counter[Convolution] = Counter()

    def note(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        found = Convolution(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            (inputs[0].shape[-2], inputs[0].shape[-1]),
        )
        flops[found] += found.flops()

    prior = _by_layers(prior)
    # the evaluated network may be a copy in another precision
    network = getattr(prior, "cast", prior.model)
    modules = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        prior.denoise(torch.zeros(1, *shape, dtype=torch.complex64), torch.ones(1))
    finally:
        for hook in hooks:
            hook.remove()
    return [convolution for convolution, _ in flops.most_common(COUNT)]


def _by_layers(prior: Any) -> Any:
    """Return a prior without fused kernels, which hooks and counters miss."""
    return prior.unfused() if isinstance(prior, NetworkPrior) else prior


def _seconds(run: Callable[[], Any], count: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
