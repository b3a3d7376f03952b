"""Train a prior on magnitude volumes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from scoremri_core.commands.progress import progress
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)


def train(
    data: Annotated[Path, typer.Option(help="Folder of NIfTI volumes with a manifest.csv.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    name: Annotated[str, typer.Option(help="Name of the prior.")] = "default",
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 5000,
    batch: Annotated[int, typer.Option(help="Patches a step.", min=1)] = 16,
    patch: Annotated[int, typer.Option(help="Side of a patch, pixels.", min=32)] = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    architecture: Annotated[
        str, typer.Option(help="unet, or residual-unet: the score network of Ramzi et al. 2020.")
    ] = "unet",
    blocks: Annotated[
        str | None, typer.Option(help="Residual blocks per scale, such as 3,3,3,2.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Prior to begin with, a name or a path; blocks that it lacks begin as identity."
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="denoising: log-normal noise levels; signed: normal ones of either sign, as in "
            "Ramzi et al. 2020 (residual-unet alone)."
        ),
    ] = "denoising",
    signed_sd: Annotated[
        float, typer.Option(help="Sd of the signed noise levels, where the images are about 1.")
    ] = 0.5,
) -> None:
    """Train a denoiser by score matching, measure it and write weights and card.

    A run in the same folder is resumed. The result, NAME.safetensors with its card NAME.json, is
    a prior for every command: --prior FOLDER/NAME.safetensors.
    """
    from scoremri_core.arguments import find_device
    from scoremri_core.priors.storage import ARCHITECTURES, save_prior
    from scoremri_core.training import loop, measure
    from scoremri_core.training.volumes import load_slices, sources

    settings = loop.Settings(
        steps,
        batch,
        patch,
        learning_rate,
        seed=seed,
        device=str(find_device(device)),
        architecture=architecture,
        loss=loss,
        signed_sd=signed_sd,
        blocks=_whole_numbers("--blocks", blocks),
        start=start,
    )
    slices = load_slices(data, "train")
    logger.info("%d training slices", len(slices))
    with progress("training", steps) as advance:
        model = loop.train(
            slices, output, settings, lambda step, loss: advance(step, f"loss {loss:.4f}")
        )

    validation = load_slices(data, "val")
    card = {
        "name": name,
        "description": "Denoiser of complex MR images whose 99th percentile is about 1.",
        "command": f"scoremri train --data DATA -o RUN --steps {steps} --batch {batch} "
        f"--patch {patch} --learning-rate {learning_rate:g} --seed {seed}"
        + _options(architecture, loss, signed_sd)
        + ("" if blocks is None else f" --blocks {blocks}")
        + ("" if start is None else f" --start {Path(start).stem}"),
        "training_data": sources(data, "train"),
        "validation_data": sources(data, "val"),
        "training_slices": len(slices),
        "sigma_range": settings.sigma_range,
    }
    path = output / f"{name}.safetensors"
    # batch statistics do not fit half precision
    half = architecture == "unet"
    save_prior(path, model, card, half)
    # sees what is added to the card; the measurements start on the CPU
    prior = ARCHITECTURES[architecture].prior(model.cpu(), card)
    card["denoiser_error"] = measure.denoiser_error(prior, validation)
    if architecture == "unet":
        card["error_spectrum"] = measure.error_spectrum(prior, validation)
    card["variance_scale"], card["variance_calibration"] = measure.calibrate_variance(
        prior, validation
    )
    save_prior(path, model, card, half)
    logger.info("wrote %s", path)


def _options(architecture: str, loss: str, signed_sd: float) -> str:
    """What differs from the default prior, as it was given."""
    options = "" if architecture == "unet" else f" --architecture {architecture}"
    if loss == "signed":
        options += f" --loss signed --signed-sd {signed_sd:g}"
    return options


def _whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r}: expected whole numbers, such as 3,3,3,2") from error
