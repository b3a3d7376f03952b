"""What the rows say, as text: Markdown tables with their legends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from scoremri_core.studies.compare.presets import Preset
from scoremri_core.studies.compare.scores import TrialScore
from scoremri_core.studies.compare.tables import Cell, Line, table
from scoremri_core.studies.methods import POSTERIOR_MEAN
from scoremri_core.studies.methods.networks import Trained
from scoremri_core.studies.methods.peers import missing

SCORES = (
    ("psnr", "PSNR in dB against |MVUE|", ".1f"),
    ("ssim", "SSIM against |MVUE|", ".3f"),
    ("rss_psnr", "PSNR in dB against the root sum of squares", ".1f"),
    ("rss_ssim", "SSIM against the root sum of squares", ".3f"),
)
SIGNIFICANT = 0.05
LEGEND = (
    "Magnitudes, zero where the reference is under 5 % of its maximum. Mean of n slices and half "
    "of its 95 % interval (Student's); * where it differs from the posterior mean's by a paired "
    f"two-sided t-test, p < {SIGNIFICANT}. Slices of one subject are not independent: the "
    "intervals are of slices, not of subjects."
)


def written(
    rows: Sequence[TrialScore],
    peer_rows: Sequence[TrialScore],
    networks: Sequence[Trained],
    methods: Sequence[str],
    name: str,
    preset: Preset,
) -> Iterator[str]:
    """The whole report, line by line."""
    size = preset.training
    factors = " or ".join(f"{factor:g}" for factor in size.accelerations)
    yield (
        f"Preset {name}: {preset.slices} slices of each scan, {preset.samples} posterior samples; "
        f"networks trained on {size.side} x {size.side} pixels, {size.coils} coils, vertical "
        f"equispaced lines, R = {factors}, against |MVUE|, on the same examples.\n"
    )
    yield row_of(["network", "parameters", "steps", "minutes"])
    yield row_of(["---", "---:", "---:", "---:"])
    for own in networks:
        minutes = f"{own.seconds / 60:.1f}"
        yield row_of([own.title, f"{own.parameters:,}", str(own.steps), minutes])
    yield ""
    yield from tables(rows, methods)
    yield from drops(rows, methods)
    yield LEGEND + "\n"
    if peer_rows:
        yield from peers(peer_rows)
    yield from missing()
    failed = [row for row in (*rows, *peer_rows) if row.error]
    if failed:
        yield f"\n{len(failed)} reconstructions failed; the first: {failed[0].error}"


def tables(rows: Sequence[TrialScore], methods: Sequence[str]) -> Iterator[str]:
    """A Markdown table for each score."""
    for score, title, form in SCORES:
        lines = table(rows, score, methods, POSTERIOR_MEAN)
        head = ["shift", "", "true R", "n", *methods]
        yield f"**{title}**\n"
        yield row_of(head)
        yield row_of(["---"] * 2 + ["---:"] * (len(head) - 2))
        previous = ""
        for line in lines:
            name = "" if line.shift == previous else line.shift
            previous = line.shift
            count = max((cell.count for cell in line.cells.values()), default=0)
            cells = [_cell(line.cells.get(method), form) for method in methods]
            yield row_of([name, line.label, f"{line.true_acceleration:.1f}", str(count), *cells])
        yield ""


def drops(rows: Sequence[TrialScore], methods: Sequence[str]) -> Iterator[str]:
    """How much PSNR each method loses by a shift at the R of training, less what ours loses.

    The claim of the papers in one number: a method that is less robust than the posterior mean has
    a negative one.
    """
    lines = table(rows, "psnr", methods, POSTERIOR_MEAN)
    inside = [line for line in lines if line.shift == "in distribution"]
    home = inside[-1] if inside else None
    yield "**Lead over the posterior mean, in dB of PSNR, and what of it a shift takes away**\n"
    yield row_of(["shift", "", *(m for m in methods if m != POSTERIOR_MEAN)])
    yield row_of(["---", "---", *["---:"] * (len(methods) - 1)])
    for line in lines:
        cells = [_lead(line, home, method) for method in methods if method != POSTERIOR_MEAN]
        yield row_of([line.shift, line.label, *cells])
    yield ""


def peers(rows: Sequence[TrialScore]) -> Iterator[str]:
    """Samplers side by side: evaluations, seconds, PSNR, CRPS, coverage."""
    yield row_of(["sampler", "trial", "n", "evaluations", "s", "PSNR", "CRPS x 1000", "90 % holds"])
    yield row_of(["---", "---", *["---:"] * 6])
    for method in dict.fromkeys(row.method for row in rows):
        for label in dict.fromkeys(row.label for row in rows):
            own = [r for r in rows if (r.method, r.label) == (method, label) and not r.error]
            if own:
                yield row_of(
                    [
                        method,
                        label,
                        str(len(own)),
                        f"{_mean(own, 'evaluations'):.0f}",
                        f"{_mean(own, 'seconds'):.1f}",
                        f"{_mean(own, 'psnr'):.1f}",
                        f"{1000 * _mean(own, 'crps'):.2f}",
                        f"{100 * _mean(own, 'coverage_90'):.0f} %",
                    ]
                )
    yield ""


def row_of(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell | None, form: str) -> str:
    """Mean, interval and star."""
    if cell is None:
        return ""
    reach = "" if math.isnan(cell.half_width) else f" ± {cell.half_width:{form}}"
    return f"{cell.mean:{form}}{reach}{' *' if cell.p < SIGNIFICANT else ''}"


def _lead(line: Line, home: Line | None, method: str) -> str:
    cell = line.cells.get(method)
    if cell is None or cell.difference is None:
        return ""
    at_home = home.cells.get(method) if home else None
    if at_home is None or at_home.difference is None or line is home:
        return f"{cell.difference:+.1f}"
    return f"{cell.difference:+.1f} ({cell.difference - at_home.difference:+.1f})"


def _mean(rows: Sequence[TrialScore], name: str) -> float:
    values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
    return sum(values) / len(values) if values else math.nan
