"""The networks trained end to end: building, training, storage and reconstruction."""

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
    """Training settings, the same for each network.

    Attributes
    ----------
    steps, minutes : int, float
        Training ends at the first limit reached; a step takes one example.
    side, coils, pool : int
        Matrix size, receive coils and number of the examples.
    calibration : str
        See `kept_samples`.
    accelerations : tuple of float
        True accelerations, drawn uniformly.
    learning_rate : float
        Of Adam, decreasing as a cosine to 1 %.
    options : dict
        Of each network by its name.
    seed : int
        Of weights, examples and order.
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
    name, title : str
        One of NETWORKS, and its name in tables.
    model : nn.Module
    parameters : int
        Number of parameters.
    steps, seconds : int, float
        Of its training.
    """

    name: str
    title: str
    model: nn.Module
    parameters: int
    steps: int
    seconds: float

    @torch.no_grad()
    def reconstruct(self, problem: Problem, device: torch.device) -> Answer:
        """Reconstruct one slice."""
        image = self.model.to(device)(*problem.tensors(device))[0]
        return Answer(image.cpu().numpy() * problem.scale, evaluations=1)


def title(name: str) -> str:
    """Return the name of a network in tables."""
    return CLASSES[name][2]


def build(name: str, options: dict[str, int], seed: int = 0) -> nn.Module:
    """Build a network with random weights; raise InputError if a package is missing."""
    module, name, _ = CLASSES[name]
    network = getattr(importlib.import_module(f"scoremri_core.studies.methods.{module}"), name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = network(**options)
    return model


def train(
    name: str,
    examples: Callable[[], Examples],
    settings: Training,
    folder: Path,
    device: torch.device,
    progress: Callable[[float, str], None] = lambda done, note: None,
) -> Trained:
    """Train a network against |MVUE|, or load it if it is trained.

    A checkpoint is written every minute and resumed. The loss is the mean absolute error of the
    magnitude, over the scale of the problem.

    Parameters
    ----------
    name : str
        One of NETWORKS.
    examples : callable
        Returns the examples; not called for a trained network.
    settings : Training
    folder : Path
        Of the weights, NAME.pt.
    device : torch.device
    progress : callable, optional
        Called with the fraction done and a note with the loss.

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        A network trained with other settings; a loss that is not finite.
    """
    path = folder / f"{name}.pt"
    options = settings.options.get(name, {})
    model = build(name, options, settings.seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    stored = json.dumps(asdict(settings) | {"options": options})
    step, seconds, done = _resume(path, stored, model, optimizer, device)
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
            raise InputError(
                f"{name}, step {step}: the loss is {value}: expected a lower learning_rate than "
                f"{settings.learning_rate:g}"
            )
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
            state |= {"step": step, "seconds": seconds, "done": done, "settings": stored}
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
    """Return k-space, maps and mask of an example, and the target over the problem's scale."""
    example, mask = examples.drawn(step)
    problem = Problem((example.kspace * mask).astype(np.complex64), example.maps)
    target = torch.from_numpy(example.target / np.float32(problem.scale))[None].to(device)
    return *problem.tensors(device), target


def _loss(model: nn.Module, kspace: Tensor, maps: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    return (model(kspace, maps, mask).abs() - target).abs().mean()


def _resume(
    path: Path, settings: str, model: nn.Module, optimizer: Any, device: torch.device
) -> tuple[int, float, bool]:
    if not path.is_file():
        return 0, 0.0, False
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["settings"] != settings:
            raise InputError(f"{path}: trained with other settings: expected another folder")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: expected a network trained by this command") from error
    return int(state["step"]), float(state["seconds"]), bool(state["done"])
