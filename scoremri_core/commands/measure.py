"""Measure a prior and write that into its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Measure the denoiser's error and the width of the samples, as at the end of a training.

    A prior keeps its weights and gets a new card. From a checkpoint, of a run that has not ended
    too, the moving average becomes the prior NAME.safetensors beside it.
    """
    from scoremri_core.training.card import measure_prior, write_prior
    from scoremri_core.training.manifest import find_sources, of_split

    sources = find_sources(data)
    of_split(sources, "val")
    path = prior
    if prior.suffix != ".safetensors":
        path = prior.with_name(f"{name}.safetensors")
        write_prior(prior, path, sources)
    measure_prior(path, sources, cache)
