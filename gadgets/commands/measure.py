"""Measure a prior and write that into its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gadgets.commands.progress import progress

if TYPE_CHECKING:
    from scoremri_core.training.manifest import Source


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
    cache: Annotated[Path | None, typer.Option(help="Folder of prepared slices.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Measure the denoiser's error and the width of the samples, as at the end of a training.

    A prior keeps its weights and gets a new card. From a checkpoint, of a run that has not ended
    too, the moving average becomes the prior NAME.safetensors beside it.
    """
    from scoremri_core.request import find_device
    from scoremri_core.training.card import write_prior
    from scoremri_core.training.manifest import find_sources, of_split

    where = str(find_device(device))
    sources = find_sources(data)
    of_split(sources, "val")
    path = prior
    if prior.suffix != ".safetensors":
        path = prior.with_name(f"{name}.safetensors")
        write_prior(prior, path, sources)
    measured(path, sources, cache, where)


def measured(path: Path, sources: Sequence[Source], cache: Path | None, device: str) -> None:
    """Measure, and show how far that is."""
    from scoremri_core.training.card import measure_prior
    from scoremri_core.training.width import reconstructions

    with progress("measuring the width of the samples", reconstructions()) as advance:
        measure_prior(path, sources, cache, device, lambda done: advance(done, ""))
