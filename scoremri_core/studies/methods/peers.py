"""Samplers of other libraries with a scoremri prior as the denoiser.

DPS (Chung et al., ICLR 2023) and DiffPIR (Zhu et al., CVPR Workshops 2023) of DeepInverse. DDRM
(Kawar et al., NeurIPS 2022) needs the singular vectors of the forward operator, which have no
closed form for several coils; `sample` of BART needs a release after 0.8.
"""

from __future__ import annotations

import importlib
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges, noise_sigma
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.score.score import Answer
from scoremri_core.studies.methods.blocks import as_channels, as_complex
from scoremri_core.studies.methods.problem import Problem

MARGIN = 1.2  # over the largest magnitude of the zero-filled image
LEAST_NOISE = 0.005  # over the 99th percentile, for errors of the coil maps
# Tuned by CRPS on a cropped brain at R = 4 and 60 steps. The original guidance of DPS, the norm of
# the residual, was worse by 4 dB or more with weights of 1, 10 and 100; annealed guidance diverges
# with a weight of 10. zeta = 1 makes all noise of DiffPIR new, the authors' choice for missing
# pixels; lambda is half of theirs, within their recommended range.
DPS = {"guidance": "annealed", "weight": 3.0}
DIFFPIR = {"lambda_": 2.0, "zeta": 1.0}

NAMES = ("DPS", "DiffPIR")


def missing() -> Iterator[str]:
    """Yield the reason for each sampler that cannot be run."""
    try:
        _deepinv()
    except (ImportError, RuntimeError) as error:
        yield (
            "DPS and DiffPIR need DeepInverse (extra `peers`), which cannot be imported "
            f"({' '.join(str(error).split())})."
        )
    yield (
        "DDRM needs the singular vectors of the forward operator, which have no closed form for "
        "several coils."
    )
    yield _about_bart()


def samplers(prior: Denoiser, samples: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Return the installed samplers by name.

    Parameters
    ----------
    prior : Denoiser
    samples : int
        Posterior samples.
    steps : int
        Of the sampler.
    device : torch.device

    Returns
    -------
    dict of str to Method
    """
    try:
        _deepinv()
    except (ImportError, RuntimeError):
        return {}
    return {
        name: partial(
            _reconstruct, name=name, prior=prior, samples=samples, steps=steps, device=device
        )
        for name in NAMES
    }


def _deepinv() -> Any:
    """Import DeepInverse, which imports torchvision but uses only its Python part.

    With torch's CPU build the compiled part of torchvision (for CUDA on PyPI) is not loaded, and
    its import fails at two operators. They are declared without an implementation.

    Raises
    ------
    ImportError, RuntimeError
        Not installed, or built for another version of torch.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
    return importlib.import_module("deepinv")


class CountingDenoiser(torch.nn.Module):
    """A prior with DeepInverse's interface that counts its evaluations.

    Parameters
    ----------
    prior : Denoiser
    reach : float
        See `to_unit`.

    Attributes
    ----------
    evaluations : int
    """

    def __init__(self, prior: Denoiser, reach: float) -> None:
        super().__init__()
        self.prior = prior
        self.reach = reach
        self.evaluations = 0

    def forward(self, x: Tensor, sigma: Any, *_: Any, **__: Any) -> Tensor:
        """Denoise x, (batch, 2, y, x) in 0 to 1, with noise of sd sigma in each component."""
        self.evaluations += 1
        planes = x.to(torch.float32)
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1)
        level = (2 * self.reach * level).expand(len(planes))
        found = self._denoise(from_unit(planes, self.reach), level)
        return to_unit(found, self.reach).to(x.dtype)

    def _denoise(self, image: Tensor, sigma: Tensor) -> Tensor:
        if not isinstance(self.prior, NetworkPrior):
            return self.prior.denoise(image, sigma)
        ny, nx = image.shape[-2:]
        power = self.prior.image_spectrum((ny, nx))
        highest = self.prior.card.get("sigma_range", (0, math.inf))[1]
        if power is not None and float(sigma.max()) > highest:
            # Wiener filter above the noise levels of the network's training
            gain = power / (power + sigma.view(-1, 1, 1) ** 2)
            return to_image(gain * to_kspace(image))
        if not image.requires_grad:
            return self.prior.denoise(image, sigma)
        # DPS needs gradients, which the prior does not compute
        model = self.prior.model
        pad = (0, -nx % model.multiple, 0, -ny % model.multiple)
        denoised = model(F.pad(as_channels(image), pad, mode="replicate"), sigma)[0]
        return as_complex(denoised[..., :ny, :nx])


def to_unit(image: Tensor, reach: float) -> Tensor:
    """Map complex (batch, y, x), components in [-reach, reach], to (batch, 2, y, x) in [0, 1]."""
    return as_channels(image) / (2 * reach) + 0.5


def from_unit(planes: Tensor, reach: float) -> Tensor:
    """Invert `to_unit`."""
    return as_complex((planes - 0.5) * (2 * reach))


def linear_physics(operator: SenseOperator, sigma: float) -> Any:
    """Return the forward operator as DeepInverse's, on channels, without the shift of `to_unit`."""
    physics = _deepinv().physics

    class Sense(physics.LinearPhysics):  # type: ignore[name-defined]
        def A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802
            kspace = operator.forward(as_complex(x.to(torch.float32))[:, None, None])[:, 0]
            return torch.view_as_real(kspace).to(x.dtype)

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
            kspace = torch.view_as_complex(y.to(torch.float32).contiguous())
            return as_channels(operator.adjoint(kspace[:, None])[:, 0, 0]).to(y.dtype)

    return Sense(noise_model=physics.GaussianNoise(sigma))


def _reconstruct(
    problem: Problem,
    name: str,
    prior: Denoiser,
    samples: int,
    steps: int,
    device: torch.device,
) -> Answer:
    deepinv = _deepinv()
    if name == "DPS" and not isinstance(prior, NetworkPrior):
        raise InputError("DPS needs the gradient of the denoiser: expected a U-Net prior")
    if hasattr(prior, "to"):
        prior = prior.to(device)
    kspace, maps, mask = problem.tensors(device)
    operator = SenseOperator(maps[:, None], mask)
    noise = float(noise_sigma(covariance_from_edges(problem.kspace))) / problem.scale
    reach = MARGIN * float(np.abs(problem.zero_filled).max()) / problem.scale
    sigma = max(noise, LEAST_NOISE) / (2 * reach)
    physics = linear_physics(operator, sigma)
    denoiser = CountingDenoiser(prior, reach)
    middle = torch.full((1, 2, *mask.shape[1:]), 0.5, device=device)
    data = torch.view_as_real(kspace) / (2 * reach) + physics.A(middle)
    run: Callable[[int], Tensor]
    if name == "DPS":
        sampler = deepinv.sampling.DPS(
            denoiser,
            num_steps=steps,
            device=device,
            dtype=torch.float32,
            rng=torch.Generator(device),  # required for a seed
            **DPS,
        )

        def run(seed: int) -> Tensor:
            return sampler(data, physics, x_init=tuple(middle.shape), seed=seed)
    else:
        fidelity = deepinv.optim.data_fidelity.L2()
        sampler = deepinv.sampling.DiffPIR(
            denoiser, fidelity, sigma=sigma, max_iter=steps, device=device, **DIFFPIR
        )

        def run(seed: int) -> Tensor:
            return sampler(data, physics, seed=seed)

    with torch.random.fork_rng():
        drawn = [
            from_unit(run(1 + i + 1000 * problem.seed).float().detach(), reach)
            for i in range(samples)
        ]
    images = torch.cat(drawn).cpu().numpy() * np.float32(problem.scale)
    return Answer(images.mean(0), images, denoiser.evaluations // samples)


def _about_bart() -> str:
    program = shutil.which("bart")
    if program is None:
        return "BART is not installed: its `sample` cannot be run."
    result = subprocess.run([program, "sample", "-h"], capture_output=True, text=True, check=False)
    if result.returncode:
        return "The installed BART has no `sample`, which needs a release after 0.8."
    return "The `sample` of the installed BART takes BART networks only."
