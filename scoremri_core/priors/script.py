"""Priors as TorchScript modules `denoise(x, sigma)`, exported and imported."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoremri_core.errors import InputError
from scoremri_core.priors.edm import EdmUnet
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.unet import DenoisingUnet

TRIAL = (2, 32, 48)  # shape of test images, unlike that of the trace


class ScriptModule(nn.Module):
    """The bytes of a TorchScript archive, as a network that can be stored with a card.

    Parameters
    ----------
    size : int
        Of the archive, in bytes.
    planes : bool, optional
        Images are real (batch, 2, y, x), the real and imaginary part, not complex (batch, y, x).
    """

    archive: Tensor

    def __init__(self, size: int, planes: bool = False) -> None:
        super().__init__()
        self.config = {"size": size, "planes": planes}
        self.register_buffer("archive", torch.zeros(size, dtype=torch.uint8))


class ScriptPrior(ModelPrior):
    """A TorchScript module as a prior.

    Parameters
    ----------
    model : ScriptModule
    card : dict
        See `ModelPrior`.
    chunk : int, optional
        See `ModelPrior`.
    """

    def __init__(self, model: ScriptModule, card: dict[str, Any], chunk: int = 4) -> None:
        archive = io.BytesIO(model.archive.numpy().tobytes())
        with _quiet():
            module = torch.jit.load(archive, map_location="cpu").eval()
        super().__init__(module, card, chunk)
        self.planes = bool(model.config["planes"])

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], complex (batch, y, x)."""
        parts = [
            _called(self.model, part.to(torch.complex64), level.float(), self.planes)
            for part, level in self.passes(x, sigma)
        ]
        return torch.cat(parts)[: len(x)].to(x.dtype)


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

    Raises
    ------
    InputError
        The prior is a TorchScript module.
    """
    network = prior.model
    if isinstance(prior, ScriptPrior):
        raise InputError(f"prior {prior.name}: already a TorchScript module")
    planes = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), _quiet():
        traced = torch.jit.trace(
            _Planes(network).cpu().float().eval(), (planes, torch.tensor([0.3])), check_trace=False
        )
        scripted = torch.jit.script(_Exported(traced, getattr(network, "multiple", 1)).eval())
        archive = io.BytesIO()
        torch.jit.save(scripted, archive)
    return archive.getvalue()


def from_torchscript(path: Path) -> ScriptModule:
    """Import a TorchScript module with `denoise(x, sigma)`, or with that as its `forward`.

    Tests the module on two complex images (batch, y, x), then on real planes (batch, 2, y, x).

    Parameters
    ----------
    path : Path

    Returns
    -------
    ScriptModule

    Raises
    ------
    InputError
        Not a TorchScript archive; a module that takes neither, or returns another shape or values
        that are not finite.
    """
    content = path.read_bytes()
    try:
        with _quiet():
            module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: expected a TorchScript archive") from error
    x = torch.randn(*TRIAL, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0])
    reason = ""
    for planes in (False, True):
        try:
            with torch.no_grad():
                denoised = _called(module, x, sigma, planes)
        except (RuntimeError, TypeError, ValueError, torch.jit.Error) as error:
            reason = reason or str(error).strip().splitlines()[-1]
            continue
        if denoised.shape == x.shape and denoised.is_complex() and bool(denoised.isfinite().all()):
            network = ScriptModule(len(content), planes)
            network.archive.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            return network
        reason = reason or f"it returned {denoised.dtype} of shape {tuple(denoised.shape)}"
    raise InputError(
        f"{path}: expected denoise(x, sigma) of complex (batch, y, x) or real (batch, 2, y, x) "
        f"images ({reason})"
    )


def _called(module: Any, x: Tensor, sigma: Tensor, planes: bool) -> Tensor:
    denoise = getattr(module, "denoise", module)
    if not planes:
        found: Tensor = denoise(x, sigma)
        return found
    denoised = denoise(torch.view_as_real(x).permute(0, 3, 1, 2).contiguous(), sigma)
    return torch.view_as_complex(denoised.permute(0, 2, 3, 1).contiguous())


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore the deprecation of TorchScript, which other programs still read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield
