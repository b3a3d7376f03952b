"""Compare every sampler with posteriors known in closed form or by Gibbs sampling."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.options import Device, Overwrite, Seed
from gadgets.commands.progress import progress

COLUMNS = {
    "sampler": ("sampler", ""),
    "evals": ("evaluations", "d"),
    "mean/floor": ("mean_error_over_floor", ".2f"),
    "sd ratio": ("sd_ratio", ".3f"),
    "cov error": ("covariance_error", ".2f"),
    "50 %": ("pixel_50", ".3f"),
    "90 %": ("pixel_90", ".3f"),
    "95 %": ("pixel_95", ".3f"),
    "regions": ("region_90", ".2f"),
    "rank chi2": ("rank_chi2", ".2f"),
    "CRPS": ("crps", ".4f"),
    "residual": ("residual_chi2", ".3f"),
    "weight": ("weight_error", ".2f"),
    "MSE/best": ("mse_over_best", ".2f"),
    "seconds": ("seconds", ".1f"),
    "note": ("note", ""),
}
CAPTION = (
    "mean/floor: error of the mean of 400 samples over the Monte Carlo error; 50, 90, 95 %: "
    "coverage of pixels; regions: 90 % coverage of 16 regional means; rank chi2, residual: 1 is "
    "exact; weight: error of the mixture weights; MSE/best: mean square error over the minimum. "
    "Compare each row with the exact samples."
)


def validate(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", "--json", metavar="TABLE.json", help="Scores.", show_default="none"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small problems, as a smoke test of some seconds.")
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Compare every sampler with exactly known posteriors.

    Priors are Gaussian (32 x 32, two noise levels) and mixtures of two Gaussians, with 4 coils and
    R = 4 with calibration lines. Signals with sparse increments (16 points, half of the spectrum)
    are compared with Gibbs sampling. Takes about a quarter of an hour on two cores.
    """
    from scoremri_core.paths import check_new, replacing
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.validate.validation import validate as measure
    from scoremri_core.studies.validate.validation import work

    where = str(find_device(device))
    if output is not None:
        check_new(output, overwrite)
    # opens the output file before the computation
    with nullcontext() if output is None else replacing(output) as partial:
        with progress("validating", work(quick)) as advance:
            rows = measure(quick, seed, where, advance)
        _print(rows)
        if partial is not None:
            document = {"quick": quick, "seed": seed, "device": where, "rows": rows}
            partial.write_text(json.dumps(document, indent=1) + "\n")


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    # fixed width for files and pipes
    console = Console(width=None if sys.stdout.isatty() else 160)
    for case in dict.fromkeys(row["case"] for row in rows):
        lines = [row for row in rows if row["case"] == case]
        used = {name: c for name, c in COLUMNS.items() if any(c[0] in row for row in lines)}
        table = Table(title=case)
        for name in used:
            numeric = name not in ("sampler", "note")
            table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
        for previous, row in zip([None, *lines], lines, strict=False):
            if previous is not None and previous["sampler"] != row["sampler"]:
                table.add_section()
            table.add_row(
                *(format(row[key], form) if key in row else "" for key, form in used.values())
            )
        console.print(table)
    console.print(CAPTION, soft_wrap=False)
