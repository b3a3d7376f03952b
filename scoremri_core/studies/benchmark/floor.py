"""The least time in which this machine could evaluate a network: FLOPs over convolution rate."""

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
LONG_ENOUGH = 0.1  # seconds to time: a busy machine then slows all convolutions alike
MOST = 6  # convolutions to time: those that take most of the network's FLOPs


@dataclass(frozen=True)
class Convolution:
    """A 2D convolution of a network, on images (y, x)."""

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
        """What convolves random images, all of it laid out as the hardware likes it."""
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
        """Floating-point operations for one image, a multiplication and an addition each."""
        return count_flops(self.run(1, torch.float32, torch.device("cpu")))

    @torch.no_grad()
    def rate(self, batch: int, dtype: torch.dtype, device: torch.device) -> float:
        """FLOPs per second, on images that stay where they are."""
        run = self.run(batch, dtype, device)
        run()
        once = _seconds(run, 1, device)
        count = max(1, math.ceil(LONG_ENOUGH / once))
        return batch * count * self.flops() / _seconds(run, count, device)


def count_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of the convolutions and matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@torch.no_grad()
def evaluation_flops(prior: Any, shape: tuple[int, int]) -> int:
    """FLOPs of one evaluation of a prior on the CPU, for one image (y, x), padding included."""
    x, prior = torch.zeros(1, *shape, dtype=torch.complex64), _by_layers(prior)
    return count_flops(lambda: prior.denoise(x, torch.ones(1)))


@torch.no_grad()
def heaviest_convolutions(prior: Any, shape: tuple[int, int]) -> list[Convolution]:
    """The convolutions that take most of the FLOPs of a prior, for images (y, x)."""
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
    # of the network that is evaluated, which may be a copy in another precision
    network = getattr(prior, "cast", prior.model)
    modules = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        prior.denoise(torch.zeros(1, *shape, dtype=torch.complex64), torch.ones(1))
    finally:
        for hook in hooks:
            hook.remove()
    return [convolution for convolution, _ in flops.most_common(MOST)]


def _by_layers(prior: Any) -> Any:
    """A prior whose layers can be seen: fused kernels count for nothing."""
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
