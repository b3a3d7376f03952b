"""Calibrate intervals on a site's fully sampled frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.options import (
    OUTSIDE,
    PATTERN,
    Device,
    Group,
    Overwrite,
    Prior,
    Samples,
    Seed,
    choice,
)
from gadgets.commands.progress import progress
from scoremri_core.errors import InputError
from scoremri_core.samplers import SAMPLERS
from scoremri_core.simulation.masks import KINDS, calibration_width
from scoremri_core.simulation.retrospective import AXES, MASKS


def guarantee(
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH",
            help="Folder of fully sampled raw data, or a file; others are skipped. Repeatable.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME.json", help="The guarantee.")
    ],
    mask: Annotated[str, choice(MASKS, "--mask", help=PATTERN)] = KINDS[0],
    acceleration: Annotated[
        float, typer.Option("-R", "--acceleration", metavar="R", help=OUTSIDE)
    ] = 4.0,
    axis: Annotated[
        str, choice(AXES, "--axis", help="Undersampled axis: lines, columns or both.")
    ] = AXES[0],
    true_acceleration: Annotated[
        bool,
        typer.Option(
            "--true-acceleration/--outside-acceleration", help="Include the calibration lines in R."
        ),
    ] = False,
    calibration: Annotated[
        str,
        typer.Option(
            metavar="N|P%", help="Fully sampled lines around the centre, number or percentage."
        ),
    ] = "24",
    slices: Annotated[
        int, typer.Option(metavar="N", min=1, help="Slices per scan, evenly spaced.")
    ] = 1,
    sampler: Annotated[str, choice(SAMPLERS[:-1], "--sampler", help="Sampler.")] = SAMPLERS[0],
    samples: Samples = 8,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Noise levels of the sampler.",
            show_default="of the sampler",
        ),
    ] = None,
    prior: Prior = "default",
    device: Device = "auto",
    seed: Seed = 0,
    group: Group = "dataset",
    overwrite: Overwrite = False,
) -> None:
    """Calibrate 90 % intervals that hold on a site's scans.

    Undersamples at least 20 fully sampled frames, reconstructs them, and computes by how much the
    intervals of the samples have to be stretched, by conformal risk control. The property
    guarantee=NAME.json of a chain sends these intervals, for frames like those.
    """
    from scoremri_core import reconstruct
    from scoremri_core.paths import check_new
    from scoremri_core.recon.request import find_device
    from scoremri_core.samplers.registry import find_sampler
    from scoremri_core.studies.evaluate.survey import evenly_spaced, find_files, read_scans
    from scoremri_core.studies.guarantee.learn import (
        Protocol,
        calibration_frames,
        check_number,
        learn,
    )

    if not 1 < acceleration < math.inf:
        raise InputError(f"acceleration {acceleration:g}: expected a number above 1")
    if samples < 2:
        raise InputError(f"samples is {samples}: expected at least 2, for a standard deviation")
    calibration_width(calibration, 100)  # validates
    check_new(output, overwrite, *data)
    where = find_device(device)
    loaded: Any = find_sampler(sampler, steps, {}).prior(prior)
    loaded = loaded.to(where)
    scans = read_scans(find_files(data), lambda _, total: evenly_spaced(total, slices), group)
    total = sum(len(scan.slices) for scan in scans)
    try:
        check_number(total)
    except InputError as error:
        raise InputError(f"--data: {error}; --slices takes more of each scan") from None
    protocol = Protocol(mask, acceleration, calibration, axis, true_acceleration, seed)

    def run(kspace: Any, number: int) -> Any:
        return reconstruct(
            kspace,
            prior=loaded,
            sampler=sampler,
            samples=samples,
            steps=steps,
            seed=seed + number,
            device=device,
        )

    frames = []
    with progress("calibrating", total, every=10) as advance:
        for frame in calibration_frames(scans, protocol, run, loaded):
            frames.append(frame)
            advance(len(frames), frame.scan)
    found = learn(frames, protocol)
    found.save(output)
    _print(found, output)


def _print(found: Any, output: Path) -> None:
    typer.echo(f"{output}: {found.description}")
    factors = ", ".join(f"{factor:.2f}" for factor in found.factors)
    typer.echo(f"Intervals stretched by {factors}, from the narrowest to the widest quarter.")
    for name, title in (
        ("regions", "stretched by region"),
        ("plain", "stretched by one factor"),
        ("samples", "of the samples"),
    ):
        figures = found.left_out[name]
        typer.echo(
            f"On scans left out, intervals {title}: hold {figures['coverage']:.1%} of the pixels "
            f"(least in a frame {figures['least_coverage']:.0%}), half width "
            f"{figures['half_width']:.4f} of the maximum."
        )
    typer.echo(f"{found.left_out['refused']:.0%} of the frames left out would be refused.")
