"""The table that `evaluate` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremri_core.studies.evaluate.survey import ScanScore

# title: field of a row or of the medians, format
COLUMNS = (
    ("true R", ("true_acceleration",), ".2f"),
    ("zero", ("psnr", "zero-filled"), ".1f"),
    ("SENSE", ("psnr", "CG-SENSE"), ".1f"),
    ("L1 0.01", ("psnr_fixed_lambda",), ".2f"),
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
WIDE = 170  # characters; narrower terminals omit DETAILS
DETAILS = ("zero", "SENSE", "L1 0.01", "±", "CRPS", "misfit", "thermal", "sigma_n", "s")


def print_table(rows: Sequence[ScanScore], summary: dict[str, Any], title: str) -> None:
    """Print the scores as a table.

    Parameters
    ----------
    rows : sequence of ScanScore
        Scores of each scan, mask and acceleration.
    summary : dict
        As `scoremri_core.studies.evaluate.survey.summary` returns it.
    title : str
        Settings, for the title of the table.
    """
    from rich.console import Console
    from rich.table import Table

    # fixed width for files and pipes
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
    table.add_row("median", "", "", *cells(summary["median"]), "")
    console.print(table)
    for line in _summary_lines(summary):
        console.print(line, highlight=False)


def _summary_lines(summary: dict[str, Any]) -> list[str]:
    from scoremri_core.studies.evaluate.survey import HONEST_COVERAGE, HONEST_RATIO

    lines = []
    if summary["worst_gain"] is not None:
        interval = summary["mean_gain_interval"]
        interval = "" if interval is None else f" ± {interval:.2f} (95 %, over scans)"
        lines.append(
            f"Gain over L1-wavelet: mean {summary['mean_gain']:+.2f}{interval} dB, worst "
            f"{summary['worst_gain']:+.2f} dB."
        )
    if summary["worst_sd_to_error"] is not None:
        lines.append(
            f"Worst sd/err: {summary['worst_sd_to_error']:.2f}; "
            f"{summary['share_sd_to_error']:.0%} of the rows within "
            f"{HONEST_RATIO[0]} to {HONEST_RATIO[1]}."
        )
    if summary["share_coverage_90"] is not None:
        low, high = HONEST_COVERAGE
        lines.append(
            f"90 % intervals that cover {low:.0%} to {high:.0%} of the pixels: "
            f"{summary['share_coverage_90']:.0%} of the rows."
        )
    for name, text in (("failed", "failed"), ("without_samples", "had no samples")):
        if summary[name]:
            lines.append(f"{summary[name]} of {summary['rows']} rows {text}: see the notes.")
    return lines
