"""Fit a prior to the images of a site."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.measure import measured
from gadgets.commands.options import Device, Overwrite, Seed
from gadgets.commands.progress import progress

logger = logging.getLogger(__name__)


def adapt(
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH",
            help="Folder, manifest (.csv) or file of images, as for train. Repeatable.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME.safetensors", help="Fitted prior.")
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="PRIOR", help="Prior to begin with (a unet).")
    ] = "default",
    minutes: Annotated[
        float, typer.Option(metavar="X", help="Longest duration of the training.", min=0.01)
    ] = 50,
    undersampled: Annotated[
        bool,
        typer.Option(
            "--undersampled",
            help="The files are accelerated scans; trains on their posterior samples.",
        ),
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Measure the prior in the end, for its card.")
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Fit a prior to the images of a site.

    Trains a prior further on fully sampled raw data, complex images, or magnitudes (NIfTI, DICOM),
    mixed with images drawn from the prior itself, so that it keeps what it knows. A part of the
    subjects is held back, as by train. The training ends by itself when the error on those no
    longer decreases; the prior is not written if the error has not decreased by 1 % at least.
    Interrupted, it is resumed from the folder NAME-run, which is removed in the end.
    """
    from scoremri_core.paths import check_new
    from scoremri_core.recon.request import find_device
    from scoremri_core.training.adapt import adapt as fit
    from scoremri_core.training.adapt import sampled_slices, settings_for, write_adapted
    from scoremri_core.training.manifest import find_sources, select_split
    from scoremri_core.training.slices import load_slices

    path = output if output.suffix == ".safetensors" else Path(f"{output}.safetensors")
    for place in (path, path.with_suffix(".json")):
        check_new(place, overwrite)
    where = str(find_device(device))
    sources = find_sources(data)
    training, validation = select_split(sources, "train"), select_split(sources, "val")
    run = path.with_name(f"{path.stem}-run")
    cache = run / "cache"
    with progress("preparing", len(training) + len(validation)) as advance:
        done = len(validation)
        if undersampled:
            held_back = sampled_slices(validation, start, where, lambda n: advance(n, ""))
            slices = sampled_slices(training, start, where, lambda n: advance(n + done, ""))
        else:
            held_back = load_slices(validation, cache, lambda n: advance(n, ""))
            slices = load_slices(training, cache, lambda n: advance(n + done, ""))
    logger.info("%d slices, %d held back", len(slices), len(held_back))
    with progress("training", round(60 * minutes)) as advance:
        settings = settings_for(start, slices, where, seed)
        outcome = fit(slices, held_back, run, settings, 60 * minutes, advance)
    write_adapted(run, path, sources, outcome)
    logger.info("wrote %s: %s after %d steps", path, outcome, outcome.steps)
    if measure and not undersampled:
        measured(path, sources, cache, where)
    shutil.rmtree(run)
