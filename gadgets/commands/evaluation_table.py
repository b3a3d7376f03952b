"""The table that `evaluate` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremri_core.studies.evaluate.survey import ScanScore

# title, where it is in a row or in the medians, and how it is written
COLUMNS = (
    ("true R", ("true_acceleration",), ".2f"),
    ("zero", ("psnr", "zero-filled"), ".1f"),
    ("SENSE", ("psnr", "CG-SENSE"), ".1f"),
    ("L1 .01", ("psnr_fixed_lambda",), ".2f"),
    ("L1", ("psnr", "L1-wavelet"), ".2f"),
    ("ours", ("psnr", "posterior mean"), ".2f"),
    ("gain", ("gain",), "+.2f"),
    ("±", ("gain_interval",), ".2f"),
    ("SSIM L1", ("masked_ssim", "L1-wavelet"), ".4f"),
    ("ours", ("masked_ssim", "posterior mean"), ".4f"),
    ("sd/err", ("sd_to_error",), ".2f"),
    ("in 90 %", ("coverage_90",), ".0%"),
    ("CRPS", ("crps",), ".4f"),
    ("misfit", ("misfit",), ".2f"),
    ("thermal", ("sigma_thermal",), ".4f"),
    ("sigma_n", ("sigma_n",), ".4f"),
    ("s", ("seconds",), ".1f"),
)
WIDE = 170  # characters; a narrower terminal does not get the columns of DETAILS
DETAILS = ("zero", "SENSE", "L1 .01", "±", "CRPS", "misfit", "thermal", "sigma_n", "s")


def print_table(rows: Sequence[ScanScore], told: dict[str, Any], title: str) -> None:
    """Print rows and what `summary` tells of them, as wide as the terminal bears."""
    from rich.console import Console
    from rich.table import Table

    # A file or a pipe has no width: the table is given all it needs.
    console = Console(width=None if sys.stdout.isatty() else 220)
    columns = [c for c in COLUMNS if console.width >= WIDE or c[0] not in DETAILS]

    def cells(row: dict[str, Any]) -> Iterator[str]:
        for _, (name, *method), form in columns:
            value = row[name].get(*method) if method else row[name]
            yield "" if value is None else format(value, form)

    table = Table(title=f"PSNR in dB, SSIM of the object; {title}", padding=(0, 0, 0, 1))
    for name in ("scan", "mask"):
        table.add_column(name, no_wrap=True)
    for name in ("R", *(title for title, _, _ in columns)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note")
    previous = None
    for row in rows:
        same = row.scan == previous
        if previous and not same:
            table.add_section()
        previous = row.scan
        note = row.error or row.fallback or ("" if row.reference == "MVUE" else row.reference)
        name = "" if same else row.scan
        table.add_row(name, row.mask, f"{row.acceleration:g}", *cells(asdict(row)), note)
    table.add_section()
    table.add_row("median", "", "", *cells(told["median"]), "")
    console.print(table)
    for line in _summary_lines(told):
        console.print(line, highlight=False)


def _summary_lines(told: dict[str, Any]) -> list[str]:
    from scoremri_core.studies.evaluate.survey import HONEST_COVERAGE, HONEST_RATIO

    lines = []
    if told["worst_gain"] is not None:
        reach = told["mean_gain_interval"]
        reach = "" if reach is None else f" ± {reach:.2f} (95 %, over scans)"
        lines.append(
            f"Gain over L1-wavelet: mean {told['mean_gain']:+.2f}{reach} dB, worst "
            f"{told['worst_gain']:+.2f} dB."
        )
    if told["worst_sd_to_error"] is not None:
        lines.append(
            f"Worst sd/err: {told['worst_sd_to_error']:.2f}; {told['share_sd_to_error']:.0%} of "
            f"the rows within {HONEST_RATIO[0]} to {HONEST_RATIO[1]}."
        )
    if told["share_coverage_90"] is not None:
        low, high = HONEST_COVERAGE
        lines.append(
            f"90 % intervals that hold {low:.0%} to {high:.0%}: {told['share_coverage_90']:.0%} of "
            "the rows."
        )
    for name, what in (("failed", "failed"), ("without_samples", "had no samples")):
        if told[name]:
            lines.append(f"{told[name]} of {told['rows']} rows {what}: see the notes.")
    return lines
