"""Train a prior."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gadgets.commands.measure import check_name, measured
from gadgets.commands.options import Device, Overwrite
from gadgets.commands.progress import Advance, progress
from gadgets.commands.settings import from_settings, set_defaults
from scoremri_core.errors import InputError
from scoremri_core.training import PRESETS
from scoremri_core.training.options import TrainingOptions

if TYPE_CHECKING:
    from scoremri_core.training.ranks import Ranks

logger = logging.getLogger(__name__)


def _take_preset(context: typer.Context, preset: str | None) -> str | None:
    """Use the values of a preset as defaults of the other options."""
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset '{preset}': expected one of {', '.join(PRESETS)}")
    if preset:
        set_defaults(context, PRESETS[preset])
    return preset


@from_settings(TrainingOptions)
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
    *,
    settings: dict[str, Any],
    device: Device = "auto",
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

    options = Settings(**settings)
    # validate before reading or writing
    check_name(name)
    check_folder(output)
    options.network()
    options.load_teacher()
    loop.check_resumable(output, options)
    path = output / f"{name}.safetensors"
    for file in (path, path.with_suffix(".json")):
        check_writable(file, new_folder=True)
        if not (output / loop.CHECKPOINT).exists():  # a resumed run replaces its prior
            check_absent(file, overwrite)
    cache = cache or output / "cache"
    with init_ranks(device) as ranks:
        ranks.share(options.batch)
        sources = find_sources(data)
        training, validation = select_split(sources, "train"), select_split(sources, "val")
        with ranks.in_turn(), _progress(ranks, "preparing", len(training + validation)) as advance:
            held_out = load_slices(validation, cache, lambda n: advance(n, ""))
            slices = load_slices(training, cache, lambda n: advance(n + len(validation), ""))
        if ranks.first:
            logger.info("%d training slices, %d for validation", len(slices), len(held_out))
        with _progress(ranks, "training", options.steps) as advance:
            loop.train(
                slices,
                output,
                options,
                lambda step, loss: advance(step, f"loss {loss:.4f}"),
                Monitor(held_out, options.patch, output / "denoised.png"),
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
