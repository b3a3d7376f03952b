"""Measure a prior and write that into its card."""

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
            metavar="PRIOR", help="A .safetensors prior, or the checkpoint.pt of a training run."
        ),
    ],
    data: Annotated[
        list[Path], typer.Option(help="As for train: the same data, with the same splits. Repeat.")
    ],
    name: Annotated[
        str, typer.Option(help="Of the prior that is written beside a checkpoint.")
    ] = "default",
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared slices.", show_default="none")
    ] = None,
    width: Annotated[
        bool,
        typer.Option(
            help="Choose the factors on the variance, which the sampler posterior alone uses."
        ),
    ] = True,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Measure a prior, as train does at its end, for its card.

    Of the denoiser the error, of the samples the width. A prior keeps its weights and gets a new
    card. From a checkpoint, of a run that has not ended too, the moving average becomes the prior
    NAME.safetensors beside it.
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
    """Measure; show how far that is, and how long it will take."""
    from scoremri_core.training.card import measure_prior
    from scoremri_core.training.width import reconstructions

    total = reconstructions() if width else 0
    then = f", then {total} reconstructions" if width else ""
    logger.info("measuring %s: the denoiser's error%s", path, then)
    with progress("measuring", total) as advance:
        started = 0.0

        def tell(done: int) -> None:
            nonlocal started
            now = time.monotonic()
            if done == 1:
                started = now
            if done == 2:
                left = (now - started) * (total - 2)
                logger.info("the other %d reconstructions take about %s", total - 2, span(left))
            advance(done, "the width of the samples")

        measure_prior(path, sources, cache, device, tell, width)


def span(seconds: float) -> str:
    """A time in words."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def check_name(name: str) -> None:
    """Refuse, with InputError, the name of a prior that is none for a file."""
    if Path(name).name != name:
        raise InputError(f"name {name!r}: expected the name of a file, without folders")
