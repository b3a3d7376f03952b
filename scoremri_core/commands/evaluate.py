"""Compare reconstructions of a fully sampled scan that was undersampled in memory."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scoremri_core.commands.progress import progress
from scoremri_core.errors import InputError
from scoremri_core.masks import KINDS

if TYPE_CHECKING:
    from scoremri_core.evaluation import Comparison

COLUMNS = {
    "R": ("acceleration", "g"),
    "true R": ("true_acceleration", ".2f"),
    "method": ("method", ""),
    "PSNR dB": ("psnr", ".2f"),
    "SSIM": ("ssim", ".4f"),
    "masked SSIM": ("masked_ssim", ".4f"),
    "sd/err": ("sd_to_error", ".2f"),
    "seconds": ("seconds", ".1f"),
    "note": ("note", ""),
}


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="FULL.h5", help="Fully sampled ISMRMRD file.")],
    acceleration: Annotated[
        list[float] | None,
        typer.Option("-R", "--acceleration", help="Repeat for several; 4, 6 and 8 if none."),
    ] = None,
    mask: Annotated[str, typer.Option(help=f"Sampling pattern: {', '.join(KINDS)}.")] = KINDS[0],
    calibration: Annotated[int, typer.Option(help="Fully sampled lines around the centre.")] = 24,
    slices: Annotated[
        list[int] | None, typer.Option("--slice", help="Slice, from 0; repeat, or all if none.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Posterior samples.", min=1)] = 8,
    steps: Annotated[int | None, typer.Option(help="Denoiser evaluations a sample.")] = None,
    prior: Annotated[str, typer.Option(help="Name of a shipped prior, or a path.")] = "default",
    seed: Annotated[int, typer.Option(help="Seed of the samples and of a random mask.")] = 0,
    property_: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="KEY=VALUE", help="Any other option of reconstruct()."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="TABLE.json", help="Scores.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Picture of the first slice, for each R.")
    ] = None,
    group: Annotated[str, typer.Option(help="Group of the scan in the file.")] = "dataset",
) -> None:
    """Score zero-filling, SENSE, L1-wavelet and the posterior mean against the full data.

    The reference is the MVUE of the full data with coil maps from the calibration lines. L1-wavelet
    gets the best lambda of three, chosen by its PSNR; nothing else sees the reference.
    """
    from scoremri_core import load_prior, reconstruct
    from scoremri_core.evaluation import METHODS, Evaluation, averaged
    from scoremri_core.gridding import fully_sampled_kspace
    from scoremri_core.scans import replacing

    kspace = fully_sampled_kspace(source, group)
    chosen = list(range(len(kspace))) if slices is None else slices
    if not all(0 <= index < len(kspace) for index in chosen):
        raise InputError(f"{source}: slice {chosen}: expected 0 to {len(kspace) - 1}")
    options: dict[str, Any] = {"samples": samples, "steps": steps, "prior": prior, "seed": seed}
    options |= _options(property_ or [])
    if options.get("sampler") != "none" and isinstance(options["prior"], str):
        options["prior"] = load_prior(options["prior"])

    accelerations = acceleration or [4.0, 6.0, 8.0]
    total = len(chosen) * len(accelerations) * len(METHODS)
    scores, done = [], 0
    with progress("evaluating", total, every=10) as advance:
        for index in chosen:
            evaluation = Evaluation(kspace[index], index, calibration)
            for factor in accelerations:

                def before(method: str, index: int = index, factor: float = factor) -> None:
                    nonlocal done
                    advance(done, f"slice {index}, R = {factor:g}, {method}")
                    done += 1

                found, comparison = evaluation.run(
                    mask, factor, lambda ksp: reconstruct(ksp, **options), seed, before
                )
                scores += found
                if picture is not None and index == chosen[0]:
                    several = len(accelerations) > 1
                    suffix = f"_R{factor:g}{picture.suffix}" if several else picture.suffix
                    path = picture.with_name(picture.stem + suffix)
                    _draw(path, comparison, f"{source.name}, slice {index}, {mask} R = {factor:g}")
    rows = list(averaged(scores))
    _print(rows, f"{source.name}: {mask}, {calibration} calibration lines, slices {chosen}")
    if output is not None:
        document = {
            "source": source.name,
            "mask": mask,
            "calibration": calibration,
            "samples": samples,
            "prior": prior,
            "seed": seed,
            "mean": rows,
            "slices": [asdict(score) for score in scores],
        }
        with replacing(output) as partial:
            partial.write_text(json.dumps(document, indent=1) + "\n")


def _options(pairs: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs: numbers and other literals as such, the rest as text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.isidentifier():
            raise InputError(f"-p {pair}: expected KEY=VALUE")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def _print(rows: list[dict[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in COLUMNS:
        numeric = name not in ("method", "note")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    previous = None
    for row in rows:
        if previous not in (None, row["acceleration"]):
            table.add_section()
        previous = row["acceleration"]
        values = [(row[key], form) for key, form in COLUMNS.values()]
        table.add_row(*("" if value is None else format(value, form) for value, form in values))
    # A file or a pipe has no width: the table is given all it needs.
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _draw(path: Path, comparison: Comparison, title: str) -> None:
    from scoremri_core.pictures import comparison as draw
    from scoremri_core.scans import replacing

    with replacing(path) as partial:
        draw(
            partial,
            comparison.reference,
            comparison.images["zero-filled"],
            comparison.images["posterior mean"],
            comparison.std,
            title,
        )
