"""The networks trained end to end: how each is built, trained, kept and run."""

from __future__ import annotations

import importlib
import json
import logging
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scoremri_core.errors import InputError
from scoremri_core.paths import replacing
from scoremri_core.score.score import Answer
from scoremri_core.studies.methods.examples import Examples
from scoremri_core.studies.methods.problem import Problem

logger = logging.getLogger(__name__)

CLASSES = {
    "varnet": ("varnet", "VarNet", "E2E-VarNet"),
    "modl": ("modl", "Modl", "MoDL"),
    "updnet": ("updnet", "UpdNet", "UPDNet"),
}


@dataclass(frozen=True)
class Training:
    """How the networks are trained; the same for each.

    Attributes
    ----------
    steps, minutes : whichever ends first; the steps of one example each.
    side, coils, pool : of the examples.
    calibration, accelerations : see `kept_samples`; the latter are true ones, drawn evenly.
    learning_rate : of Adam, from which a cosine falls to a hundredth.
    options : of each network by its name.
    seed : of weights, examples and order.
    """

    steps: int = 20000
    minutes: float = 12.0
    side: int = 160
    coils: int = 8
    pool: int = 160
    calibration: str = "8%"
    accelerations: tuple[float, ...] = (3.0, 6.0)  # as in Jalal et al. 2021
    learning_rate: float = 1e-3
    options: dict[str, dict[str, int]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    name, title : one of NETWORKS, and what it is called in tables.
    model : it.
    parameters : how many.
    steps, seconds : of its training.
    """

    name: str
    title: str
    model: nn.Module
    parameters: int
    steps: int
    seconds: float

    @torch.no_grad()
    def reconstruct(self, problem: Problem, device: torch.device) -> Answer:
        """The image of one slice, as the network was trained to give it."""
        image = self.model.to(device)(*problem.tensors(device))[0]
        return Answer(image.cpu().numpy() * problem.scale, evaluations=1)


def title(name: str) -> str:
    """What a network is called in tables."""
    return CLASSES[name][2]


def build(name: str, options: dict[str, int], seed: int = 0) -> nn.Module:
    """A network with random weights; InputError where a package is missing."""
    module, class_name, _ = CLASSES[name]
    own = getattr(importlib.import_module(f"scoremri_core.studies.methods.{module}"), class_name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = own(**options)
    return model


def train(
    name: str,
    examples: Callable[[], Examples],
    settings: Training,
    folder: Path,
    device: torch.device,
    progress: Callable[[float, str], None] = lambda done, note: None,
) -> Trained:
    """Train a network against |MVUE|, or read the one that the folder has.

    A checkpoint is kept every minute, and resumed; the loss is the mean absolute error of the
    magnitude, over the scale that the network sees.

    Parameters
    ----------
    examples : makes them, where they are needed.
    folder : of the weights, NAME.pt, that depend on the settings and the data alone.
    progress : called with the share of the work that is done, and the loss.

    Raises
    ------
    InputError : the folder's network was trained otherwise; the loss is no longer finite.
    """
    path = folder / f"{name}.pt"
    options = settings.options.get(name, {})
    model = build(name, options, settings.seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    told = json.dumps(asdict(settings) | {"options": options})
    step, seconds, done = _resume(path, told, model, optimizer, device)
    pool = None if done else examples()
    clock, saved, smooth = time.perf_counter() - seconds, seconds, math.nan
    while not done:
        share = min(1.0, max(step / settings.steps, seconds / (60 * settings.minutes)))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (0.01 + 0.495 * (1 + math.cos(math.pi * share)))
        assert pool is not None
        loss = _loss(model, *_tensors(pool, step, device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"{name}, step {step}: the loss is {value}: expected a lower rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        step, seconds = step + 1, time.perf_counter() - clock
        done = step >= settings.steps or seconds >= 60 * settings.minutes
        progress(share, f"{title(name)}, step {step}, loss {smooth:.4f}")
        if done or seconds - saved > 60:
            saved = seconds
            state: dict[str, Any] = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            state |= {"step": step, "seconds": seconds, "done": done, "settings": told}
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                torch.save(state, partial)
    parameters = sum(p.numel() for p in model.parameters())
    logger.info("%s: %d parameters, %d steps, %.0f s", title(name), parameters, step, seconds)
    return Trained(name, title(name), model.eval(), parameters, step, seconds)


def train_all(
    names: Sequence[str],
    examples: Callable[[], Examples],
    settings: Training,
    folder: Path,
    device: torch.device,
    progress: Callable[[float, str], None] = lambda done, note: None,
) -> list[Trained]:
    """Train several networks on the same examples; see `train`. `progress` counts networks."""
    shared = cache(examples)
    return [
        train(
            name,
            shared,
            settings,
            folder,
            device,
            lambda share, note, done=done: progress(done + share, note),  # type: ignore[misc]
        )
        for done, name in enumerate(names)
    ]


def _tensors(
    examples: Examples, step: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """K-space, maps and mask of an example as a problem has them, and the target over the scale."""
    example, mask = examples.drawn(step)
    problem = Problem((example.kspace * mask).astype(np.complex64), example.maps)
    target = torch.from_numpy(example.target / np.float32(problem.scale))[None].to(device)
    return *problem.tensors(device), target


def _loss(model: nn.Module, kspace: Tensor, maps: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    return (model(kspace, maps, mask).abs() - target).abs().mean()


def _resume(
    path: Path, told: str, model: nn.Module, optimizer: Any, device: torch.device
) -> tuple[int, float, bool]:
    if not path.is_file():
        return 0, 0.0, False
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["settings"] != told:
            raise InputError(
                f"{path}: trained with other settings: expected another folder, or no such file"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: no network of this command") from error
    return int(state["step"]), float(state["seconds"]), bool(state["done"])
