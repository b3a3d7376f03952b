"""Samplers of other libraries with our prior behind their interface of a denoiser.

DPS (Chung et al., ICLR 2023) and DiffPIR (Zhu et al., CVPR Workshops 2023), both DeepInverse's.
DDRM (Kawar et al., NeurIPS 2022) needs the singular vectors of the forward operator, which that of
several coils does not have in closed form; and BART's `sample` came after release 0.8.
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
LEAST_NOISE = 0.005  # of the 99th percentile: maps err too
# Chosen by CRPS on a brain that is for tuning, cropped, at R = 4 and 60 steps.  The original
# guidance of DPS, the norm of the residual, was worse by 4 dB or more with weights of 1, 10 and
# 100; a weight of 10 of the annealed one diverges.  With zeta = 1 all noise of DiffPIR is new, as
# its authors have it for missing pixels; lambda is half of theirs, within what they recommend.
DPS = {"guidance": "annealed", "weight": 3.0}
DIFFPIR = {"lambda_": 2.0, "zeta": 1.0}

NAMES = ("DPS", "DiffPIR")


def missing() -> Iterator[str]:
    """A sentence for each peer that cannot be run here."""
    try:
        _deepinv()
    except (ImportError, RuntimeError) as error:
        yield (
            "DPS and DiffPIR need DeepInverse, of the extra `peers`, which cannot be "
            f"imported here ({' '.join(str(error).split())})."
        )
    yield (
        "DDRM needs the singular vectors of the forward operator, which that of several coils does "
        "not have in closed form."
    )
    yield _about_bart()


def samplers(prior: Denoiser, samples: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Methods by name: those that are installed."""
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
    """DeepInverse, which begins with torchvision, and uses what of that is written in Python.

    The package index has torchvision for CUDA alone.  Beside torch's CPU build its compiled part is
    not loaded, and the import stops where it describes two operators of that part to torch.  Here
    they get a name and nothing behind it, and it goes on; torch refuses to call them.

    Raises
    ------
    ImportError, RuntimeError : one of them is not installed, or of another torch.
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
    """A prior as DeepInverse calls it: x (batch, 2, y, x) in 0 to 1, sigma of each component.

    Parameters
    ----------
    prior : the prior.
    reach : see `to_unit`.

    Attributes
    ----------
    evaluations : so far.
    """

    def __init__(self, prior: Denoiser, reach: float) -> None:
        super().__init__()
        self.prior = prior
        self.reach = reach
        self.evaluations = 0

    def forward(self, x: Tensor, sigma: Any, *_: Any, **__: Any) -> Tensor:
        """Denoise."""
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
            # they begin far above what networks for MR images are trained for
            gain = power / (power + sigma.view(-1, 1, 1) ** 2)
            return to_image(gain * to_kspace(image))
        if not image.requires_grad:
            return self.prior.denoise(image, sigma)
        # the prior itself keeps no gradients, which DPS needs
        model = self.prior.model
        pad = (0, -nx % model.multiple, 0, -ny % model.multiple)
        denoised = model(F.pad(as_channels(image), pad, mode="replicate"), sigma)[0]
        return as_complex(denoised[..., :ny, :nx])


def to_unit(image: Tensor, reach: float) -> Tensor:
    """Complex (batch, y, x), parts within -reach to reach, to channels (batch, 2, y, x), 0 to 1."""
    return as_channels(image) / (2 * reach) + 0.5


def from_unit(planes: Tensor, reach: float) -> Tensor:
    """The inverse of `to_unit`."""
    return as_complex((planes - 0.5) * (2 * reach))


def linear_physics(operator: SenseOperator, sigma: float) -> Any:
    """The forward operator as DeepInverse's, on channels, without the shift of `to_unit`."""
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
        raise InputError("DPS: needs the gradient of the denoiser: expected a U-Net prior")
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
            rng=torch.Generator(device),  # without one it takes no seed
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
    told = subprocess.run([program, "sample", "-h"], capture_output=True, text=True, check=False)
    if told.returncode:
        return "The installed BART has no `sample`, which came after release 0.8."
    return "The installed BART has `sample`, which takes a network of its own, not a prior of ours."
