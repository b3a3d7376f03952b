"""The precision that networks compute in."""

from __future__ import annotations

import platform
from functools import cache

import torch


@cache
def fastest_precision(device: torch.device) -> torch.dtype:
    """Choose bfloat16 where the hardware computes in it, float32 elsewhere.

    A CPU without such instructions emulates bfloat16, and took nine times as long for a network.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.dtype
    """
    if device.type != "cpu":
        return torch.bfloat16
    if platform.machine().lower() in ("x86_64", "amd64"):
        # no public part of torch, and on AVX-512 oneDNN's own answer counts emulation
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, name, bool)() for name in names)
    else:
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to the fastest precision, for training.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.autocast
    """
    precision = fastest_precision(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)
