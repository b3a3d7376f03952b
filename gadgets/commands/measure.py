"""Measure a prior and write the results to its card."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gadgets.commands.options import Device, Overwrite
from gadgets.commands.progress import progress
from scoremri_core.errors import InputError

if TYPE_CHECKING:
    from scoremri_core.training.manifest import Source

logger = logging.getLogger(__name__)


def measure(
    prior: Annotated[
        Path,
        typer.Argument(
            metavar="PRIOR", help="A .safetensors prior, or checkpoint.pt of a training run."
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH", help="Training data with their splits, as for train. Repeatable."
        ),
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the prior written next to a checkpoint.")
    ] = "default",
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for prepared slices.", show_default="none"),
    ] = None,
    width: Annotated[
        bool,
        typer.Option(help="Calibrate the factors on the variance, used by the sampler posterior."),
    ] = True,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Measure a prior, as train does in the end, for its card.

    Measures the error of the denoiser and the spread of the samples. A prior keeps its weights and
    gets a new card. The moving average of a checkpoint, also of an unfinished run, is written as
    NAME.safetensors next to it.
    """
    from scoremri_core.paths import check_new, check_readable, check_writable
    from scoremri_core.recon.request import find_device
    from scoremri_core.training.card import write_prior
    from scoremri_core.training.manifest import find_sources, select_split

    check_name(name)
    check_readable(prior)
    is_run = prior.suffix != ".safetensors"
    path = prior.with_name(f"{name}.safetensors") if is_run else prior
    for place in (path, path.with_suffix(".json")):
        check_new(place, overwrite) if is_run else check_writable(place)
    where = str(find_device(device))
    sources = find_sources(data)
    select_split(sources, "val")
    if is_run:
        write_prior(prior, path, sources)
    measured(path, sources, cache, where, width)


def measured(
    path: Path, sources: Sequence[Source], cache: Path | None, device: str, width: bool = True
) -> None:
    """Measure a prior with a progress bar.

    Parameters
    ----------
    path : Path
        The .safetensors file, whose card is updated.
    sources : sequence of Source
        Data with their splits.
    cache : Path or None
        Folder for prepared slices.
    device : str
        Device to compute on.
    width : bool, optional
        Calibrate the factors on the variance. Default: True.
    """
    from scoremri_core.training.card import measure_prior
    from scoremri_core.training.width import reconstructions

    total = reconstructions() if width else 0
    then = f", then {total} reconstructions" if width else ""
    logger.info("measuring %s: denoiser error%s", path, then)
    with progress("measuring", total or None) as advance:
        started = 0.0

        def update(done: int) -> None:
            nonlocal started
            now = time.monotonic()
            if done == 1:
                started = now
            if done == 2:
                left = (now - started) * (total - 2)
                logger.info("remaining %d reconstructions: about %s", total - 2, span(left))
            advance(done, "spread of the samples")

        measure_prior(path, sources, cache, device, update, width)


def span(seconds: float) -> str:
    """Format a duration in h, min or s."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def check_name(name: str) -> None:
    """Raise InputError if the name of a prior is not a file name."""
    if Path(name).name != name:
        raise InputError(f"name {name!r}: expected a file name without folders")
