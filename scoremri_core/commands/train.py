"""Train a prior on magnitude volumes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

logger = logging.getLogger(__name__)


def train(
    data: Annotated[Path, typer.Option(help="Folder of NIfTI volumes with a manifest.csv.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 5000,
    batch: Annotated[int, typer.Option(help="Patches a step.")] = 16,
    patch: Annotated[int, typer.Option(help="Side of a patch, pixels.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a denoiser by score matching; a run in the same folder is resumed."""
    from scoremri_core.training.loop import Settings
    from scoremri_core.training.loop import train as run
    from scoremri_core.training.volumes import load_slices

    settings = Settings(steps, batch, patch, learning_rate, seed=seed, device="cpu")
    run(load_slices(data, "train"), output, settings)
