"""The training loop."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scoremri_core.errors import InputError
from scoremri_core.paths import replacing, writing
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.training.augment import training_patch
from scoremri_core.training.batch_norm import recompute_batch_norm
from scoremri_core.training.objective import (
    Objective,
    geometric_levels,
    log_normal_levels,
    signed_levels,
)
from scoremri_core.training.processing import processed_patch
from scoremri_core.training.ranks import Ranks
from scoremri_core.training.settings import Network, Settings
from scoremri_core.training.slices import Slice

logger = logging.getLogger(__name__)

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
BATCH_NORM_STEPS = 16  # batches for the statistics of batch normalisation


def train(
    slices: list[Slice],
    folder: Path,
    settings: Settings,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    at_checkpoint: Callable[[Network], Mapping[str, float]] = lambda average: {},
    ranks: Ranks | None = None,
    done: Callable[[], bool] = lambda: False,
) -> Network:
    """Train a denoiser, or resume from the checkpoint in a folder.

    Appends one JSON line to `folder/log.jsonl` per checkpoint.

    Parameters
    ----------
    slices : list of Slice
    folder : Path
        Of checkpoint.pt and log.jsonl.
    settings : Settings
    progress : callable, optional
        Called after each step with the step number and the smoothed loss.
    at_checkpoint : callable, optional
        Called with the moving average; the mapping it returns is added to the JSON line.
    ranks : Ranks, optional
        The training processes; only the first writes files and calls back.
    done : callable, optional
        Called after each checkpoint; True ends the training of one process before the last step.

    Returns
    -------
    DenoisingUnet, ResidualUnet or NCSNv2
        The moving average.

    Raises
    ------
    InputError
        The checkpoint of another network; a loss that is not finite.
    """
    ranks = ranks or Ranks(device=settings.device)
    share = torch.tensor(ranks.share(settings.batch))
    torch.manual_seed(settings.seed)
    device = torch.device(ranks.device)
    model = settings.network()
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = settings.optimiser(model)
    folder.mkdir(parents=True, exist_ok=True)
    start = _resume(folder / CHECKPOINT, model, average, optimizer, device)
    teacher = settings.load_teacher(device)
    objective = _shared(Objective(model, teacher), ranks, settings.compile)

    smooth: float | None = None
    interval: list[float] = []
    clock = time.perf_counter()
    for step, clean, noise, processed in batches(slices, settings, ranks, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        sigma = _levels(step, settings, model)[share]
        loss, reported = objective(*(x.to(device) for x in (clean, sigma, noise, processed)))
        value = float(reported)
        if not math.isfinite(value):
            raise InputError(
                f"step {step}: the loss is {value}: expected a finite loss; try a learning_rate "
                f"below {settings.learning_rate:g}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if settings.optimizer == "adamw":  # no clipping with the papers' Adam
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if isinstance(model, ResidualUnet) and settings.spectral_norm:
            model.constrain()
        _update_average(average, model, step, settings.ema_decay)
        interval.append(value)
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        if ranks.first:
            progress(step + 1, smooth)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            seconds = time.perf_counter() - clock
            record = {
                "step": step + 1,
                "loss": round(ranks.mean(float(np.mean(interval))), 5),
                "learning_rate": learning_rate(step, settings),
                "samples_per_second": round(len(interval) * settings.batch / seconds, 2),
            }
            if ranks.first:
                recompute_batch_norm(average, _recent(slices, settings, model, step + 1, device))
                state = {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "settings": settings.to_json(),
                }
                _save(state, folder / CHECKPOINT)
                record |= at_checkpoint(average)
                with writing(folder / LOG), (folder / LOG).open("a") as log:
                    log.write(json.dumps(record) + "\n")
                logger.info("step %(step)d: loss %(loss).5f, %(samples_per_second).1f/s", record)
            if ranks.count == 1 and done():
                break
            interval.clear()
            clock = time.perf_counter()
    return average


def learning_rate(step: int, settings: Settings) -> float:
    """Return the learning rate of a step: warm-up and a cosine to 2 % of the peak, or constant."""
    if settings.schedule == "constant":
        return settings.learning_rate
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    t = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * t)))


def batches(
    slices: list[Slice], settings: Settings, ranks: Ranks, start: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Generate batches, prefetched by threads.

    A patch depends only on the seed, the step and its index in the batch, so that resumed and
    parallel runs see the same patches.

    Parameters
    ----------
    slices : list of Slice
    settings : Settings
    ranks : Ranks
    start : int
        First step.

    Yields
    ------
    step : int
    patches : float tensor, (share, 2, patch, patch)
    noise : float tensor, (share, 2, patch, patch)
        Sd 1.
    processed : bool tensor, (share,)
        Patches that are filtered or masked.
    """

    shares = np.cumsum([s.weight for s in slices])

    def make(step: int) -> tuple[Tensor, Tensor, Tensor]:
        patches, noises, processed = [], [], []
        for place in ranks.share(settings.batch):
            rng = np.random.default_rng([settings.seed, step, place])
            drawn = np.searchsorted(shares, rng.random() * shares[-1], side="right")
            image = slices[drawn].image
            processed.append(rng.random() < settings.processed)
            drawer = processed_patch if processed[-1] else training_patch
            patches.append(drawer(image, settings.patch, rng))
            noises.append(rng.standard_normal((2, *patches[-1].shape), dtype=np.float32))
        clean = torch.view_as_real(torch.from_numpy(np.stack(patches))).permute(0, 3, 1, 2)
        return clean, torch.from_numpy(np.stack(noises)), torch.tensor(processed)

    # on the CPU the network needs the cores
    cores = (os.cpu_count() or 1) // ranks.count
    workers = 1 if ranks.device == "cpu" else max(1, min(8, cores - 1))
    steps = iter(range(start, settings.steps))
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque((step, pool.submit(make, step)) for step in islice(steps, workers))
        while ahead:
            step, made = ahead.popleft()
            batch = made.result()
            ahead.extend((later, pool.submit(make, later)) for later in islice(steps, 1))
            yield step, *batch


def _recent(
    slices: list[Slice], settings: Settings, model: Network, steps: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Generate noisy images and noise levels of the last steps, over all processes."""
    done = replace(settings, steps=steps)
    for step, clean, noise, _ in batches(slices, done, Ranks(), max(0, steps - BATCH_NORM_STEPS)):
        sigma = _levels(step, settings, model)
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise
        yield noisy.to(device, memory_format=torch.channels_last), sigma.to(device)


def _levels(step: int, settings: Settings, model: Network) -> Tensor:
    """Draw the noise levels (batch,) of a step, over all processes."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    if settings.loss == "signed":
        return signed_levels(settings.batch, settings.signed_sd, generator)
    if isinstance(model, NCSNv2):
        return geometric_levels(model.sigmas, settings.batch, generator)
    return log_normal_levels(settings.batch, generator)


def _shared(objective: Any, ranks: Ranks, compiled: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Average the gradients over the processes, and compile."""
    if ranks.count > 1:
        objective = nn.parallel.DistributedDataParallel(objective)
    return torch.compile(objective) if compiled else objective


@torch.no_grad()
def _update_average(average: Network, model: Network, step: int, decay: float) -> None:
    # a short memory at first, to forget the initial weights
    decay = min(decay, (step + 1) / (step + 10))
    for a, p in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(p, 1 - decay)
    # the statistics of batch norm are already averages over time
    for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)


def _resume(
    checkpoint: Path,
    model: Network,
    average: Network,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """Load a checkpoint, if there is one; return the number of steps done."""
    if not checkpoint.exists():
        return 0
    state = read_checkpoint(checkpoint, device)
    _load(checkpoint, model, state["model"])
    _load(checkpoint, average, state["average"])
    optimizer.load_state_dict(state["optimizer"])
    logger.info("resuming %s at step %d", checkpoint, state["step"])
    return int(state["step"])


def check_resumable(folder: Path, settings: Settings) -> None:
    """Raise InputError for a folder with a checkpoint of another network."""
    if (folder / CHECKPOINT).exists():
        state = read_checkpoint(folder / CHECKPOINT)
        _load(folder / CHECKPOINT, settings.network(begin=False), state["model"])


def _load(checkpoint: Path, network: Network, weights: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint}: expected the run of a network of the same architecture and size"
        ) from error


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the checkpoint of a run.

    Parameters
    ----------
    path : Path
    device : torch.device or str, optional

    Returns
    -------
    dict
        `model`, `average`, `optimizer`, `step` and `settings` (JSON).

    Raises
    ------
    InputError
        No such file, or not a checkpoint of `train`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError,
        AttributeError, TypeError,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: not a checkpoint of scoremri train") from error
    known = {"model", "average", "optimizer", "step", "settings"}
    if not isinstance(state, dict) or not known <= set(state):
        raise InputError(f"{path}: not a checkpoint of scoremri train")
    return state


def _save(state: dict[str, Any], path: Path) -> None:
    # in memory first: torch does not report why a file cannot be written
    checkpoint = io.BytesIO()
    torch.save(state, checkpoint)
    with replacing(path) as partial:
        partial.write_bytes(checkpoint.getbuffer())
