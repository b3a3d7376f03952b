"""The methods of the tables by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scoremri_core.studies.compare.presets import Preset
from scoremri_core.studies.compare.scores import Method
from scoremri_core.studies.methods import conv_decoder, l1_wavelet, posterior
from scoremri_core.studies.methods.examples import Examples
from scoremri_core.studies.methods.networks import Trained, build, train

OURS = "posterior mean"
L1 = "L1-wavelet"
DECODER = "ConvDecoder"


def check(preset: Preset, networks: tuple[str, ...]) -> None:
    """Tell of a package that is missing before anything is read: InputError."""
    for name in networks:
        build(name, preset.training.options.get(name, {}))


def trained(
    preset: Preset,
    networks: tuple[str, ...],
    examples: Callable[[], Examples],
    folder: Path,
    device: torch.device,
    progress: Callable[[float, str], None],
) -> list[Trained]:
    """Train each network, or read it from the folder; progress counts networks."""
    pool: list[Examples] = []

    def shared() -> Examples:
        pool.extend([] if pool else [examples()])
        return pool[0]

    found = []
    for done, name in enumerate(networks):

        def tell(share: float, note: str, done: int = done) -> None:
            progress(done + share, note)

        found.append(train(name, shared, preset.training, folder, device, tell))
    return found


def methods(
    preset: Preset, networks: list[Trained], prior: Any, device: torch.device
) -> dict[str, Method]:
    """What is called with a problem, by what it is called in the tables."""
    found: dict[str, Method] = {L1: l1_wavelet.reconstruct}
    if preset.decoder_iterations:
        found[DECODER] = partial(
            conv_decoder.reconstruct, device=device, iterations=preset.decoder_iterations
        )
    found |= {own.title: partial(own.reconstruct, device=device) for own in networks}
    found[OURS] = partial(
        posterior.reconstruct, prior=prior, samples=preset.samples, device=str(device)
    )
    return found
