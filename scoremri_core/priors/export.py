"""Priors exported as TorchScript modules `denoise(x, sigma)`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoremri_core.priors.edm import EdmUnet
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.unet import DenoisingUnet


class _Planes(nn.Module):
    """E[x0 | x] of planes (batch, 2, y, x) by the network of a prior."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        if isinstance(self.network, DenoisingUnet):
            return self.network(x, sigma)[0]
        if isinstance(self.network, NCSNv2):
            bounded = level.clamp(min=float(self.network.sigmas.min()))
            return x + level**2 / bounded * self.network.unscaled(x)
        if isinstance(self.network, EdmUnet):
            denoised: Tensor = self.network(x, sigma)
            return denoised
        return x + level**2 * self.network(x, sigma)


class _Exported(nn.Module):
    """Scripted wrapper of a traced network: padding, and complex images as planes."""

    def __init__(self, traced: nn.Module, multiple: int) -> None:
        super().__init__()
        self.traced = traced
        self.multiple = multiple

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = torch.real(sigma) if sigma.is_complex() else sigma
        ny, nx = x.shape[1], x.shape[2]
        m = self.multiple
        pad = [0, (m - nx % m) % m, 0, (m - ny % m) % m]
        planes = F.pad(torch.view_as_real(x).permute(0, 3, 1, 2), pad, mode="replicate")
        denoised = self.traced(planes.contiguous(), level.float())[:, :, :ny, :nx]
        return torch.view_as_complex(denoised.permute(0, 2, 3, 1).contiguous())

    @torch.jit.export
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.forward(x, sigma)


def to_torchscript(prior: ModelPrior) -> bytes:
    """Export the network of a prior as a TorchScript archive.

    `forward` and `denoise` of the module take complex64 (batch, y, x) of any size and noise levels
    (batch,), the sd of each real component (the real part of complex numbers, as BART passes them),
    and return E[x0 | x], computed in float32.

    Parameters
    ----------
    prior : ModelPrior

    Returns
    -------
    bytes
    """
    network = prior.model
    planes = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), _quiet():
        traced = torch.jit.trace(
            _Planes(network).cpu().float().eval(), (planes, torch.tensor([0.3])), check_trace=False
        )
        scripted = torch.jit.script(_Exported(traced, getattr(network, "multiple", 1)).eval())
        archive = io.BytesIO()
        torch.jit.save(scripted, archive)
    return archive.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore the deprecation of TorchScript, which other programs still read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
