"""Train a prior on one's own images."""

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
    """Let a preset's values be the defaults of the other options."""
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset '{preset}': expected one of {', '.join(PRESETS)}")
    context.default_map = dict(PRESETS[preset]) if preset else None
    return preset


def train(
    data: Annotated[
        list[Path],
        typer.Option(
            help="Folder, manifest (.csv) or file: NIfTI volumes, fully sampled raw data, "
            "HDF5 files with a dataset 'image'. Repeat for several."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    name: Annotated[str, typer.Option(help="Name of the prior.")] = "default",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of prepared slices.", show_default="RUN/cache"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar=f"[{'|'.join(PRESETS)}]",
            help="A paper's settings, for every option that is not given.",
            show_default="none",
            is_eager=True,
            callback=_take_preset,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 5000,
    batch: Annotated[int, typer.Option(help="Patches a step, over all processes.", min=1)] = 16,
    patch: Annotated[int, typer.Option(help="Side of a patch, pixels.", min=32)] = 128,
    processed: Annotated[
        float,
        typer.Option(
            help="Share of patches whose k-space is filtered or whose background is zero, as "
            "vendors do.",
            min=0,
            max=1,
        ),
    ] = 0.25,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    optimizer: Annotated[
        str, choice(OPTIMIZERS, help="adamw clips gradients to norm 1; adam is plain.")
    ] = "adamw",
    adam_eps: Annotated[
        float, typer.Option(help="What the optimiser adds to the root of the second moment.")
    ] = 1e-8,
    schedule: Annotated[
        str, choice(SCHEDULES, help="Of the learning rate; cosine begins with a warm-up.")
    ] = "cosine",
    ema_decay: Annotated[
        float, typer.Option(help="Of the moving average of the weights, a step.")
    ] = 0.999,
    seed: Seed = 0,
    device: Device = "auto",
    architecture: Annotated[
        str,
        choice(
            ARCHITECTURES,
            help="residual-unet is the score network of Ramzi et al. 2020, ncsnv2 that of Jalal "
            "et al. 2021.",
        ),
    ] = "unet",
    channels: Annotated[
        str | None,
        typer.Option(
            help="Width at each scale, such as 64,128,192,192; not of an ncsnv2.",
            show_default="the architecture's own",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            help="Residual blocks per scale, such as 3,3,3,2; not of an ncsnv2.",
            show_default="the architecture's own",
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(help="Channels of an ncsnv2 at full resolution.", min=1)
    ] = 32,
    depth: Annotated[str, choice(DEPTHS, help="Of an ncsnv2.")] = "deeper",
    levels: Annotated[int, typer.Option(help="Noise levels of an ncsnv2.", min=2)] = 2311,
    sigma_begin: Annotated[
        float,
        typer.Option(help="Greatest noise level of an ncsnv2, where the images are about 1."),
    ] = 232.0,
    sigma_end: Annotated[float, typer.Option(help="Least noise level of an ncsnv2.")] = 0.0066,
    spectral_norm: Annotated[
        bool, typer.Option(help="Hold the spectral norms of a residual-unet at 2.")
    ] = True,
    start: Annotated[
        str | None,
        typer.Option(
            help="Prior to begin with, a name or a path; blocks that it lacks begin as identity, "
            "those that it has too many are left out.",
            show_default="none",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Prior of the architecture unet whose denoised images are learned instead of the "
            "clean ones, a name or a path: for a smaller network, or another architecture.",
            show_default="none",
        ),
    ] = None,
    loss: Annotated[
        str,
        choice(
            LOSSES,
            help="denoising: log-normal noise levels; signed: normal ones of either sign, as in "
            "Ramzi et al. 2020 (residual-unet alone).",
        ),
    ] = "denoising",
    signed_sd: Annotated[
        float, typer.Option(help="Sd of the signed noise levels, where the images are about 1.")
    ] = 0.5,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 250,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile, which needs a C compiler.")
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Measure the prior at the end, for its card; takes a while.")
    ] = True,
    overwrite: Overwrite = False,
) -> None:
    """Train a denoiser by score matching on one's own images.

    It is measured, and weights and card are written. A run in the same folder is resumed. It keeps
    checkpoint.pt, log.jsonl and denoised.png, a picture of denoised validation patches. The result,
    NAME.safetensors with its card NAME.json, is a prior for every command:
    --prior RUN/NAME.safetensors.

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
    # what does not go together is refused before anything is read or written
    check_name(name)
    check_folder(output)
    settings.network()
    settings.load_teacher()
    loop.check_resumable(output, settings)
    path = output / f"{name}.safetensors"
    for place in (path, path.with_suffix(".json")):
        check_writable(place, new_folder=True)
        if not (output / loop.CHECKPOINT).exists():  # of a run, the prior is its own
            check_absent(place, overwrite)
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
            logger.info("wrote %s, not measured: scoremri measure does it later", path)


def _progress(ranks: Ranks, task: str, total: int) -> AbstractContextManager[Advance]:
    return progress(task, total) if ranks.first else nullcontext(lambda done, note: None)


def _whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r}: expected whole numbers, such as 3,3,3,2") from error
