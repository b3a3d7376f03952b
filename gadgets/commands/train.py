"""Train a prior."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gadgets.commands.measure import check_name, measured
from gadgets.commands.options import Device, Overwrite, Seed, choice
from gadgets.commands.progress import Advance, progress
from scoremri_core.errors import InputError
from scoremri_core.training import ARCHITECTURES, DEPTHS, LOSSES, OPTIMIZERS, PRESETS, SCHEDULES

if TYPE_CHECKING:
    from scoremri_core.training.ranks import Ranks

logger = logging.getLogger(__name__)


def _take_preset(context: typer.Context, preset: str | None) -> str | None:
    """Use the values of a preset as defaults of the other options."""
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset '{preset}': expected one of {', '.join(PRESETS)}")
    context.default_map = dict(PRESETS[preset]) if preset else None
    return preset


def train(
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH",
            help="Folder, manifest (.csv) or file: NIfTI volumes, fully sampled raw data, "
            "HDF5 files with a dataset 'image'. Repeatable.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Run folder.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the prior.")] = "default",
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for prepared slices.", show_default="RUN/cache"
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar=f"[{'|'.join(PRESETS)}]",
            help="Settings of a paper, for all options that are not given.",
            show_default="none",
            is_eager=True,
            callback=_take_preset,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Number of optimiser steps.", min=1)
    ] = 5000,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Patches per step, over all processes.", min=1)
    ] = 16,
    patch: Annotated[int, typer.Option(metavar="N", help="Patch size in pixels.", min=32)] = 128,
    processed: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Fraction of patches with simulated vendor processing (filtered k-space or zero "
            "background).",
            min=0,
            max=1,
        ),
    ] = 0.25,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="Peak learning rate.")] = 1e-3,
    optimizer: Annotated[
        str, choice(OPTIMIZERS, help="adamw clips gradients to norm 1; adam does not.")
    ] = "adamw",
    adam_eps: Annotated[
        float,
        typer.Option(metavar="X", help="Epsilon of the optimiser."),
    ] = 1e-8,
    schedule: Annotated[
        str, choice(SCHEDULES, help="Learning-rate schedule; cosine starts with a warm-up.")
    ] = "cosine",
    ema_decay: Annotated[
        float,
        typer.Option(metavar="X", help="Decay of the moving average of the weights per step."),
    ] = 0.999,
    seed: Seed = 0,
    device: Device = "auto",
    architecture: Annotated[
        str,
        choice(
            ARCHITECTURES,
            help="Network; residual-unet is that of Ramzi et al. 2020, ncsnv2 that of Jalal et al. "
            "2021.",
        ),
    ] = "unet",
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Channels at each scale, such as 64,128,192,192 (not for ncsnv2).",
            show_default="of the architecture",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Residual blocks per scale, such as 3,3,3,2 (not for ncsnv2).",
            show_default="of the architecture",
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(metavar="N", help="Channels of ncsnv2 at full resolution.", min=1)
    ] = 32,
    depth: Annotated[str, choice(DEPTHS, help="Depth of ncsnv2.")] = "deeper",
    levels: Annotated[
        int, typer.Option(metavar="N", help="Number of noise levels of ncsnv2.", min=2)
    ] = 2311,
    sigma_begin: Annotated[
        float,
        typer.Option(metavar="X", help="Largest noise level of ncsnv2, for images of about 1."),
    ] = 232.0,
    sigma_end: Annotated[
        float, typer.Option(metavar="X", help="Smallest noise level of ncsnv2.")
    ] = 0.0066,
    spectral_norm: Annotated[
        bool, typer.Option(help="Bound the spectral norms of residual-unet by 2.")
    ] = True,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            help="Prior to initialise the weights with; missing blocks start as identity, surplus "
            "blocks are dropped.",
            show_default="none",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            help="Prior (unet) whose denoised images are the targets instead of the clean images, "
            "to distil it into a smaller network or another architecture.",
            show_default="none",
        ),
    ] = None,
    loss: Annotated[
        str,
        choice(
            LOSSES,
            help="denoising: log-normal noise levels; signed: normal, of either sign, as in Ramzi "
            "et al. 2020 (only residual-unet).",
        ),
    ] = "denoising",
    signed_sd: Annotated[
        float,
        typer.Option(metavar="X", help="Sd of the signed noise levels, for images of about 1."),
    ] = 0.5,
    checkpoint_every: Annotated[
        int, typer.Option(metavar="N", help="Steps between checkpoints.", min=1)
    ] = 250,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile (needs a C compiler).")
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Measure the prior in the end, for its card.")
    ] = True,
    overwrite: Overwrite = False,
) -> None:
    """Train a prior by denoising score matching.

    The run folder holds checkpoint.pt, log.jsonl and denoised.png (denoised validation patches); a
    run in the same folder is resumed. The result, NAME.safetensors with its card NAME.json, is a
    prior for every command: --prior RUN/NAME.safetensors.

    On several GPUs: torchrun --nproc-per-node N -m -- scoremri_core train ...
    """
    from scoremri_core.paths import check_absent, check_folder, check_writable
    from scoremri_core.training import loop
    from scoremri_core.training.card import write_prior
    from scoremri_core.training.manifest import find_sources, select_split
    from scoremri_core.training.monitor import Monitor
    from scoremri_core.training.ranks import init_ranks
    from scoremri_core.training.settings import Settings
    from scoremri_core.training.slices import load_slices

    settings = Settings(
        steps,
        batch,
        patch,
        learning_rate,
        seed=seed,
        checkpoint_every=checkpoint_every,
        channels=_whole_numbers("--channels", channels),
        blocks=_whole_numbers("--blocks", blocks),
        architecture=architecture,
        loss=loss,
        signed_sd=signed_sd,
        start=start,
        teacher=teacher,
        compile=compile_,
        optimizer=optimizer,
        adam_eps=adam_eps,
        schedule=schedule,
        ema_decay=ema_decay,
        width=width,
        depth=depth,
        levels=levels,
        sigma_begin=sigma_begin,
        sigma_end=sigma_end,
        spectral_norm=spectral_norm,
        processed=processed,
    )
    # validate before reading or writing
    check_name(name)
    check_folder(output)
    settings.network()
    settings.load_teacher()
    loop.check_resumable(output, settings)
    path = output / f"{name}.safetensors"
    for file in (path, path.with_suffix(".json")):
        check_writable(file, new_folder=True)
        if not (output / loop.CHECKPOINT).exists():  # a resumed run replaces its prior
            check_absent(file, overwrite)
    cache = cache or output / "cache"
    with init_ranks(device) as ranks:
        ranks.share(batch)
        sources = find_sources(data)
        training, validation = select_split(sources, "train"), select_split(sources, "val")
        with ranks.in_turn(), _progress(ranks, "preparing", len(training + validation)) as advance:
            held_out = load_slices(validation, cache, lambda n: advance(n, ""))
            slices = load_slices(training, cache, lambda n: advance(n + len(validation), ""))
        if ranks.first:
            logger.info("%d training slices, %d for validation", len(slices), len(held_out))
        with _progress(ranks, "training", steps) as advance:
            loop.train(
                slices,
                output,
                settings,
                lambda step, loss: advance(step, f"loss {loss:.4f}"),
                Monitor(held_out, patch, output / "denoised.png"),
                ranks,
            )
    if ranks.first:
        write_prior(output / loop.CHECKPOINT, path, sources)
        if measure:
            measured(path, sources, cache, ranks.device)
        else:
            logger.info("wrote %s, not measured (see scoremri measure)", path)


def _progress(ranks: Ranks, task: str, total: int) -> AbstractContextManager[Advance]:
    return progress(task, total) if ranks.first else nullcontext(lambda done, note: None)


def _whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r}: expected whole numbers, such as 3,3,3,2") from error
