"""Time, memory and image quality of every method on one frame."""

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
from scoremri_core.errors import InputError

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
LEAST_CALIBRATION = 12  # lines, of which every package makes coil maps
CAPTION = (
    "Seconds are medians, coil maps included, of which coil maps, denoiser and rest are the parts; "
    "ratio is to the first row, in the same round. CRPS is over the truth's maximum. MB is the "
    "peak of a process of the row's own, interpreter and libraries included (BART: of its "
    "commands). Similarity is |<s1, s2>| with our coil maps in the head. Other packages run "
    "on the CPU, but for DeepInverse."
)


def benchmark(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FULL.h5", help="Fully sampled ISMRMRD file.", show_default="a phantom"
        ),
    ] = None,
    slice_: Annotated[
        int | None, typer.Option("--slice", help="Slice of that file, from 0.", show_default="0")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the phantom's matrix.", show_default="256")
    ] = None,
    coils: Annotated[
        int | None, typer.Option(help="Coils of the phantom's scan.", show_default="8")
    ] = None,
    mask: Mask = "equispaced",
    acceleration: Acceleration = 4,
    calibration: Calibration = 24,
    samples: Annotated[
        int | None, typer.Option(help="Posterior samples.", min=1, show_default="8")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Noise levels.", min=1, show_default="the sampler's own")
    ] = None,
    prior: Prior = "default",
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", min=1, show_default="the libraries' choice")
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(help="Runs of each row, after one.", min=1, show_default="3")
    ] = None,
    langevin_levels: Annotated[
        int, typer.Option(help="Noise levels of the Langevin sampler that are run.", min=1)
    ] = 2,
    frames: Annotated[
        int, typer.Option(help="Frames of a further row, sampled in one batch.", min=1)
    ] = 1,
    espirit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CxYxX",
            help="A further scan, for the coil maps; repeat.",
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
            help="All figures.",
            show_default="none",
        ),
    ] = None,
    growth: Annotated[
        bool,
        typer.Option(
            "--scaling",
            help="Instead: the default sampler alone, as slices, samples, pixels and coils grow; "
            "a plot beside TABLE.json, else scaling.png.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tiny scan and one repetition: does all of it run?")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Time every method on one frame, side by side.

    They are compared with the machine's floor. Rows: the default sampler, the annealed Langevin
    sampler with the same network (a few noise levels, scaled to all of them), DeepInverse's
    DiffPIR with it, SENSE, L1-wavelet, coil maps; with BART where it is installed. Takes some
    minutes on two cores, which should have nothing else to do.
    """
    from scoremri_core import load_prior
    from scoremri_core.paths import check_new, replacing
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.benchmark.case import from_file, simulated
    from scoremri_core.studies.benchmark.report import benchmark as measure
    from scoremri_core.studies.benchmark.report import work

    def or_default(value: int | None, full: int, small: int) -> int:
        return value if value is not None else small if quick else full

    # refused before the work
    if calibration < LEAST_CALIBRATION:
        raise InputError(f"calibration {calibration}: expected at least {LEAST_CALIBRATION} lines")
    if data is not None and (size is not None or coils is not None):
        raise InputError("size, coils: those of the phantom, which --data takes the place of")
    if data is None and slice_ is not None:
        raise InputError("slice: chosen of a file, which --data names")
    if output is not None:
        check_new(output, overwrite, *filter(None, [data]))
    load_prior(prior)
    settings: dict[str, Any] = {
        "mask": mask,
        "samples": or_default(samples, 8, 2),
        "steps": 3 if quick and steps is None else steps,
        "prior": prior,
        "device": str(find_device(device)),
        "frames": frames,
        "langevin_levels": langevin_levels,
    }
    rounds = or_default(repetitions, 3, 1)
    if growth:
        if data is not None:
            raise InputError("--scaling takes simulated scans alone: expected no --data")
        side = or_default(size, 256, 48)
        shape = (or_default(coils, 8, 4), side, side)
        scan = {"acceleration": acceleration, "calibration": calibration, "seed": seed}
        plot = Path("scaling.png") if output is None else output.with_suffix(".png")
        check_new(plot, overwrite)
        settings |= scan | {"frames": 1}
        return _scaling(shape, quick, rounds, threads, output, plot, settings)
    further = [_shape(text) for text in espirit or []]
    if data is None:
        side = or_default(size, 256, 64)
        shape = (or_default(coils, 8, 4), side, side)
        case = simulated(shape, acceleration, calibration, seed, **settings)
    else:
        case = from_file(data, slice_ or 0, acceleration, calibration, seed, **settings)
    cases = [simulated(each, acceleration, calibration, seed, **settings) for each in further]

    with nullcontext() if output is None else replacing(output) as partial:
        with progress("benchmark", work(case, len(cases), rounds), every=10) as advance:
            done = 0

            def count(note: str) -> None:
                nonlocal done
                done += 1
                advance(done, note)

            report = measure(case, cases, rounds, threads, count)
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
    """Measure, print and draw how time and memory grow."""
    from scoremri_core.paths import replacing
    from scoremri_core.studies.benchmark.scaling import QUICK, SIZES, draw, points, scaling

    sizes = QUICK if quick else SIZES
    with progress("scaling", points(sizes), every=1) as advance:
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
    for each in found:
        columns = {each["size"]: ("n", ",d")} | SCALING_COLUMNS
        console.print(_table(each["rows"], columns))
        console.print(
            "grows as "
            + ", ".join(
                f"n^{power:.2f} in {figure}"
                for figure, power in each["exponents"].items()
                if power is not None
            )
            + f"; n log n would be n^{each['n_log_n']:.2f}"
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

    # A file or a pipe has no width: the table is given all it needs.
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    scan, machine, settings = (report[key] for key in ("scan", "machine", "settings"))
    console.print(
        f"{scan['name']}, {scan['mask']}, true R {scan['true_acceleration']:.2f}, "
        f"{settings['samples']} samples, "
        f"prior {settings['prior']}, {settings['device']}; {machine['processor']}, "
        f"{machine['cores']} cores, threads {machine['threads'] or 'as the libraries choose'}, "
        f"torch {machine['torch']}"
    )
    console.print(_table(report["frame"], FRAME_COLUMNS))
    for each in report["coil_maps"]:
        console.print(_table(each["rows"], MAP_COLUMNS, each["scan"]))
    for line in _floor_lines(report["floor"]):
        console.print(line)
    console.print(CAPTION)
    if machine["load_before"] is not None and machine["load_before"] > 0.25 * machine["cores"]:
        console.print(
            f"The machine was busy (load {machine['load_before']:.1f}) before the first run: "
            "neither seconds nor fractions of the floor are to be quoted."
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
        words = i == 0 or name == "note"
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "note")
    for row in rows:
        table.add_row(*(_written(row[key], form) for key, form in used.values()))
    return table


def _written(value: Any, form: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if form == ".3g" and value >= 1000 else format(value, form)


def _floor_lines(floor: dict[str, Any]) -> list[str]:
    """What the network's FLOPs and the machine's convolutions say."""
    if "flops" not in floor:
        return [f"Convolutions: {floor['note']}"]
    rates = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in floor["rates"].items()
    )
    lines = [f"Network: {floor['flops'] / 1e9:.1f} GFLOP an image; convolutions: {rates}."]
    if "seconds" not in floor:
        return [*lines, f"Floor: {floor['note']}."]
    return [
        *lines,
        f"Floor of the frame: {floor['seconds']:.3g} s. The denoiser reaches "
        f"{floor['denoiser_fraction']:.0%} of that speed, the whole frame "
        f"{floor['frame_fraction']:.0%}.",
        f"Everything but the denoiser takes {floor['overhead']:.0%} of the frame, coil maps "
        f"{floor['coil_maps']:.0%}.",
    ]
