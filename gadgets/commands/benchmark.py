"""Run time, memory and image quality of every method on one frame."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.options import (
    Acceleration,
    Calibration,
    Device,
    Mask,
    Overwrite,
    Prior,
    Seed,
)
from gadgets.commands.progress import progress
from gadgets.commands.settings import from_settings, set_defaults
from scoremri_core.errors import InputError
from scoremri_core.studies.benchmark.case import OPTIONS, Case

FRAME_COLUMNS = {
    "method": ("method", ""),
    "s / frame": ("seconds", ".3g"),
    "s / sample": ("seconds_per_sample", ".3g"),
    "ratio": ("ratio", ".3g"),
    "coil maps": ("coil_maps", ".3g"),
    "denoiser": ("denoiser", ".3g"),
    "rest": ("rest", ".3g"),
    "evals": ("evaluations", "d"),
    "PSNR dB": ("psnr", ".2f"),
    "CRPS": ("crps", ".4f"),
    "MB": ("memory", ".0f"),
    "GPU MB": ("gpu_memory", ".0f"),
    "note": ("note", ""),
}
MAP_COLUMNS = {
    "coil maps": ("method", ""),
    "seconds": ("seconds", ".3g"),
    "ratio": ("ratio", ".3g"),
    "similarity": ("similarity_median", ".5f"),
    "1st percentile": ("similarity_1st_percentile", ".5f"),
    "MB": ("memory", ".0f"),
    "note": ("note", ""),
}
SCALING_COLUMNS = {"seconds": ("seconds", ".3g"), "MB": ("memory", ".0f"), "note": ("note", "")}
LEAST_CALIBRATION = 12  # lines that all packages need for coil maps
CAPTION = (
    "Seconds are medians, the sum of coil maps, denoiser and rest; ratio is to the first row of "
    "the same round. CRPS is relative to the maximum of the truth. MB is the peak memory of a "
    "separate process per row, interpreter and libraries included (BART: of its commands). "
    "Similarity is |<s1, s2>| with scoremri's coil maps in the head. Other packages except "
    "DeepInverse run on the CPU."
)


def _quick(context: typer.Context, quick: bool) -> bool:
    """Use small defaults for the other options."""
    if quick:
        set_defaults(context, {"samples": 2, "steps": 3, "repetitions": 1})
    return quick


@from_settings(Case, *OPTIONS)
def benchmark(
    data: Annotated[
        Path | None,
        typer.Option(metavar="FULL.h5", help="Fully sampled raw data.", show_default="a phantom"),
    ] = None,
    slice_: Annotated[
        int | None,
        typer.Option("--slice", metavar="N", help="Slice of the data, from 0.", show_default="0"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Matrix size of the phantom.", show_default="256"),
    ] = None,
    coils: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of coils of the phantom.", show_default="8"),
    ] = None,
    mask: Mask = "equispaced",
    acceleration: Acceleration = 4,
    calibration: Calibration = 24,
    *,
    settings: dict[str, Any],
    prior: Prior = "default",
    device: Device = "auto",
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="CPU threads.", min=1, show_default="of the libraries"),
    ] = None,
    repetitions: Annotated[
        int, typer.Option(metavar="N", help="Repetitions of each row after a warm-up.", min=1)
    ] = 3,
    espirit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CxYxX",
            help="Add coil maps of this size. Repeatable.",
            show_default="none",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            "--json",
            metavar="TABLE.json",
            help="All results.",
            show_default="none",
        ),
    ] = None,
    growth: Annotated[
        bool,
        typer.Option(
            "--scaling",
            help="Only the default sampler, with growing numbers of slices, samples, pixels and "
            "coils; plots TABLE.png, or scaling.png without -o.",
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Tiny scan and one repetition, as a smoke test.",
            is_eager=True,
            callback=_quick,
        ),
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Measure run time and memory of every method.

    Rows: the default sampler, annealed Langevin with the same network (a few noise levels, scaled
    to all of them), DeepInverse's DiffPIR with it, SENSE, L1-wavelet and coil maps; BART if it is
    installed. The lower bound is the time of the network's convolutions on this machine. Takes some
    minutes on two otherwise idle cores.
    """
    from scoremri_core import load_prior
    from scoremri_core.paths import check_new, replacing
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.benchmark.case import from_file, simulated
    from scoremri_core.studies.benchmark.report import benchmark as measure
    from scoremri_core.studies.benchmark.report import work

    def or_default(value: int | None, full: int, small: int) -> int:
        return value if value is not None else small if quick else full

    if calibration < LEAST_CALIBRATION:
        raise InputError(f"calibration {calibration}: expected at least {LEAST_CALIBRATION} lines")
    if data is not None and (size is not None or coils is not None):
        raise InputError("--size and --coils describe the phantom: not allowed with --data")
    if data is None and slice_ is not None:
        raise InputError("--slice needs --data")
    if output is not None:
        check_new(output, overwrite, *filter(None, [data]))
    load_prior(prior)
    settings |= {"mask": mask, "prior": prior, "device": str(find_device(device))}
    if growth:
        if data is not None:
            raise InputError("--scaling simulates scans: not allowed with --data")
        side = or_default(size, 256, 48)
        shape = (or_default(coils, 8, 4), side, side)
        scan = {"acceleration": acceleration, "calibration": calibration, "seed": seed}
        plot = Path("scaling.png") if output is None else output.with_suffix(".png")
        check_new(plot, overwrite)
        settings |= scan | {"frames": 1}
        return _scaling(shape, quick, repetitions, threads, output, plot, settings)
    shapes = [_shape(text) for text in espirit or []]
    if data is None:
        side = or_default(size, 256, 64)
        shape = (or_default(coils, 8, 4), side, side)
        case = simulated(shape, acceleration, calibration, seed, **settings)
    else:
        case = from_file(data, slice_ or 0, acceleration, calibration, seed, **settings)
    cases = [simulated(sides, acceleration, calibration, seed, **settings) for sides in shapes]

    with nullcontext() if output is None else replacing(output) as partial:
        with progress("benchmark", work(case, len(cases), repetitions)) as advance:
            done = 0

            def count(note: str) -> None:
                nonlocal done
                done += 1
                advance(done, note)

            report = measure(case, cases, repetitions, threads, count)
        _print(report)
        if partial is not None:
            partial.write_text(json.dumps(report, indent=1) + "\n")


def _scaling(
    shape: tuple[int, int, int],
    quick: bool,
    repetitions: int,
    threads: int | None,
    output: Path | None,
    plot: Path,
    settings: dict[str, Any],
) -> None:
    """Measure, print and plot how time and memory grow."""
    from scoremri_core.paths import replacing
    from scoremri_core.studies.benchmark.scaling import QUICK, SIZES, draw, points, scaling

    sizes = QUICK if quick else SIZES
    with progress("scaling", points(sizes)) as advance:
        done = 0

        def count(note: str) -> None:
            nonlocal done
            done += 1
            advance(done, note)

        found = scaling(
            shape,
            sizes,
            repetitions=repetitions,
            threads=threads,
            advance=count,
            **settings,
        )
    if output is not None:
        with replacing(output) as partial:
            partial.write_text(json.dumps(found, indent=1) + "\n")
    with replacing(plot) as partial:
        draw(partial, found)
    _print_scaling(found, plot)


def _print_scaling(found: list[dict[str, Any]], plot: Path) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    for series in found:
        columns = {series["size"]: ("n", ",d")} | SCALING_COLUMNS
        console.print(_table(series["rows"], columns))
        console.print(
            "scales as "
            + ", ".join(
                f"n^{power:.2f} in {figure}"
                for figure, power in series["exponents"].items()
                if power is not None
            )
            + f"; n log n would be n^{series['n_log_n']:.2f}"
        )
    console.print(f"Plot: {plot}")


def _shape(text: str) -> tuple[int, int, int]:
    """Parse CxYxX."""
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"espirit '{text}': expected coils x lines x samples, such as 32x320x320")
    coils, ny, nx = map(int, sides)
    return coils, ny, nx


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console

    # fixed width for files and pipes
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    scan, machine, settings = (report[key] for key in ("scan", "machine", "settings"))
    console.print(
        f"{scan['name']}, {scan['mask']}, true R {scan['true_acceleration']:.2f}, "
        f"{settings['samples']} samples, "
        f"prior {settings['prior']}, {settings['device']}; {machine['processor']}, "
        f"{machine['cores']} cores, threads {machine['threads'] or 'default'}, "
        f"torch {machine['torch']}"
    )
    console.print(_table(report["frame"], FRAME_COLUMNS))
    for maps in report["coil_maps"]:
        console.print(_table(maps["rows"], MAP_COLUMNS, maps["scan"]))
    for line in _floor_lines(report["floor"]):
        console.print(line)
    console.print(CAPTION)
    if machine["load_before"] is not None and machine["load_before"] > 0.25 * machine["cores"]:
        console.print(
            f"The machine was busy (load {machine['load_before']:.1f}) before the first run: "
            "do not quote the times or fractions of the lower bound."
        )


def _table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, str]], title: str = "") -> Any:
    from rich.table import Table

    used = {
        name: (key, form)
        for name, (key, form) in columns.items()
        if any(row[key] not in (None, "") for row in rows)
    }
    table = Table(title=title or None)
    for i, name in enumerate(used):
        text = i == 0 or name == "note"
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "note")
    for row in rows:
        table.add_row(*(_formatted(row[key], form) for key, form in used.values()))
    return table


def _formatted(value: Any, form: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if form == ".3g" and value >= 1000 else format(value, form)


def _floor_lines(floor: dict[str, Any]) -> list[str]:
    """Return lines on the lower bound of the run time."""
    if "flops" not in floor:
        return [f"Convolutions: {floor['note']}"]
    rates = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in floor["rates"].items()
    )
    lines = [f"Network: {floor['flops'] / 1e9:.1f} GFLOP per image; convolutions: {rates}."]
    if "seconds" not in floor:
        return [*lines, f"Lower bound: {floor['note']}."]
    return [
        *lines,
        f"Lower bound per frame: {floor['seconds']:.3g} s. The denoiser reaches "
        f"{floor['denoiser_fraction']:.0%} of that speed, the whole frame "
        f"{floor['frame_fraction']:.0%}.",
        f"Everything but the denoiser takes {floor['overhead']:.0%} of the frame, coil maps "
        f"{floor['coil_maps']:.0%}.",
    ]
