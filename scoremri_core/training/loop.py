"""Denoising score matching: the training loop."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scoremri_core.errors import InputError
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.storage import load_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training.augment import complex_patch
from scoremri_core.training.signed import score_loss, signed_levels
from scoremri_core.training.volumes import Slice

logger = logging.getLogger(__name__)

SIGMA_RANGE = (0.003, 6.0)
NETWORKS: dict[str, type[DenoisingUnet] | type[ResidualUnet]] = {
    "unet": DenoisingUnet,
    "residual-unet": ResidualUnet,
}
LOSSES = ("denoising", "signed")


@dataclass(frozen=True)
class Settings:
    """What a training run depends on, besides its data.

    Attributes
    ----------
    channels, blocks : of the network; None takes the architecture's own.
    start : prior whose weights to begin with (a name or a path); None begins at random.  Blocks
        that it lacks are added as the identity.
    architecture : one of `NETWORKS`.
    loss : "denoising", at log-normal noise levels, or "signed", at normal ones of either sign,
        which takes the residual U-Net.
    signed_sd : sd of the signed noise levels, in units of the images' 99th percentile.
    """

    steps: int = 5000
    batch: int = 16
    patch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    ema_decay: float = 0.999
    seed: int = 0
    device: str = "cpu"
    checkpoint_every: int = 250
    channels: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    architecture: str = "unet"
    loss: str = "denoising"
    signed_sd: float = 0.5
    start: str | None = None

    def __post_init__(self) -> None:
        for field, value, known in (
            ("architecture", self.architecture, NETWORKS),
            ("loss", self.loss, LOSSES),
        ):
            if value not in known:
                raise InputError(f"{field} {value!r}: expected one of {', '.join(known)}")
        if self.loss == "signed" and self.architecture != "residual-unet":
            raise InputError("loss 'signed': expected with the architecture 'residual-unet'")
        if not self.signed_sd > 0:
            raise InputError(f"signed_sd is {self.signed_sd}: expected above 0")

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and greatest noise level that training sees (signed ones: to three sd)."""
        return (0.0, 3 * self.signed_sd) if self.loss == "signed" else SIGMA_RANGE

    def network(self) -> DenoisingUnet | ResidualUnet:
        """The network before the first step.

        Raises
        ------
        InputError : the prior to start from is none, or does not fit the architecture and sizes.
        """
        sizes = {"channels": self.channels, "blocks": self.blocks}
        given = {name: value for name, value in sizes.items() if value is not None}
        network = NETWORKS[self.architecture](**given)  # type: ignore[arg-type]
        if self.start is not None:
            _begin_with(network, load_prior(self.start).model, self.start)
        return network


def _begin_with(network: nn.Module, other: nn.Module, name: str) -> None:
    """Copy the weights of `other`; what it lacks of `network` must be whole residual blocks."""
    weights = other.state_dict()
    try:
        lacking, foreign = network.load_state_dict(weights, strict=False)
    except RuntimeError:  # other shapes
        lacking, foreign = [], list(weights)
    # a residual block begins as the identity, with its last convolution at zero
    if foreign or not all(key.startswith(("down.", "up.")) for key in lacking):
        raise InputError(f"start {name!r}: expected a prior of the same architecture and channels")


def train(
    slices: list[Slice],
    folder: Path,
    settings: Settings,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> DenoisingUnet | ResidualUnet:
    """Train a denoiser; returns its moving average.

    A checkpoint in `folder` is resumed.  One JSON line is appended to `folder/log.jsonl` per
    checkpoint interval.

    Parameters
    ----------
    slices : magnitude training slices.
    folder : where checkpoint.pt and log.jsonl are kept.
    progress : called after each step with the step number and the smoothed loss.

    Raises
    ------
    InputError : the checkpoint is that of another network.
    """
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device)
    model = settings.network()
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = settings.network().to(device)
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
    )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        try:
            model.load_state_dict(state["model"])
            average.load_state_dict(state["average"])
        except RuntimeError as error:
            raise InputError(
                f"{checkpoint}: expected the run of a network of the same architecture and size"
            ) from error
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        logger.info("resuming %s at step %d", checkpoint, start)

    smooth: float | None = None
    interval: list[float] = []
    clock = time.perf_counter()
    for step, clean in batches(slices, settings, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        loss, mse = _loss(model, clean.to(device), generator, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if isinstance(model, ResidualUnet):
            model.constrain()
        # a short memory at first, so that the initial weights are forgotten
        decay = min(settings.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
            # the statistics of batch norm: averages over time as they are
            for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
                kept.copy_(buffer)
        value = float(mse)
        interval.append(value)
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        progress(step + 1, smooth)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            seconds = time.perf_counter() - clock
            clock = time.perf_counter()
            record = {
                "step": step + 1,
                "loss": round(float(np.mean(interval)), 5),
                "learning_rate": learning_rate(step, settings),
                "samples_per_second": round(len(interval) * settings.batch / seconds, 2),
            }
            interval.clear()
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            logger.info("step %(step)d: loss %(loss).5f, %(samples_per_second).1f/s", record)
            partial = checkpoint.with_suffix(".tmp")
            torch.save(
                {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "settings": json.dumps(asdict(settings)),
                },
                partial,
            )
            partial.replace(checkpoint)
    return average.eval()


def denoising_loss(
    model: DenoisingUnet, clean: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Denoising score matching with EDM weighting, and the likelihood of the error variance.

    The mean is trained by the mean square error alone: a Gaussian likelihood on both would
    spend the network on pixels that are easy.

    Parameters
    ----------
    clean : (batch, 2, y, x).

    Returns
    -------
    loss to minimise, and its mean-square part (1 = no better than the preconditioning alone).
    """
    sigma = log_normal_levels(len(clean), generator).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    skip, out, _ = model.preconditioning(sigma)
    target = (clean - skip * noisy) / out
    with torch.autocast(clean.device.type, torch.bfloat16):
        residual, log_variance = model.residual(
            noisy.contiguous(memory_format=torch.channels_last), sigma
        )
    error = (residual.float() - target).square()
    mse = error.mean()
    likelihood = (log_variance + error.detach().mean(1, keepdim=True) / log_variance.exp()).mean()
    return mse + 0.02 * likelihood, mse.detach()


def log_normal_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,), stratified over the batch for a steadier loss."""
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.999, 0.999))
    return (math.log(0.15) + 1.4 * normal).exp().clamp(*SIGMA_RANGE)


def _loss(
    model: DenoisingUnet | ResidualUnet,
    clean: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """Loss to minimise and loss to report."""
    if isinstance(model, DenoisingUnet):
        return denoising_loss(model, clean, generator)
    if settings.loss == "signed":
        sigma = signed_levels(len(clean), settings.signed_sd, generator)
    else:
        sigma = log_normal_levels(len(clean), generator)
    loss = score_loss(model, clean, sigma, generator)
    return loss, loss.detach()


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    t = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * t)))


def batches(slices: list[Slice], settings: Settings, start: int) -> Iterator[tuple[int, Tensor]]:
    """(step, patches (batch, 2, patch, patch)), made one step ahead by a second thread.

    A batch depends on the seed and the step alone, so that a resumed run sees what it would have.
    """

    def make(step: int) -> Tensor:
        rng = np.random.default_rng([settings.seed, step])
        chosen = rng.integers(0, len(slices), settings.batch)
        patches = np.stack([complex_patch(slices[i].image, settings.patch, rng) for i in chosen])
        return torch.view_as_real(torch.from_numpy(patches)).permute(0, 3, 1, 2)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, start) if start < settings.steps else None
        for step in range(start, settings.steps):
            assert ahead is not None
            batch = ahead.result()
            if step + 1 < settings.steps:
                ahead = pool.submit(make, step + 1)
            yield step, batch
