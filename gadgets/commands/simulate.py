"""Simulate a scan of the head phantom."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import (
    Acceleration,
    Axis,
    Calibration,
    CalibrationLast,
    CalibrationMode,
    Mask,
    Overwrite,
    PartialEcho,
    PartialFourier,
    Seed,
)
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)


def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5", help="New file.")],
    matrix: Annotated[
        str, typer.Option(help="Lines and readout samples of the image: N, or YxX.")
    ] = "192",
    coils: Annotated[int, typer.Option(help="Receive coils.")] = 8,
    slices: Annotated[int, typer.Option(help="Slices.")] = 1,
    partitions: Annotated[int, typer.Option(help="Partitions; more than 1 is a 3D scan.")] = 1,
    repetitions: Annotated[int, typer.Option(help="Repetitions, each with noise of its own.")] = 1,
    phases: Annotated[int, typer.Option(help="Phases, likewise.")] = 1,
    sets: Annotated[int, typer.Option(help="Sets, likewise.")] = 1,
    averages: Annotated[int, typer.Option(help="Averages, likewise.")] = 1,
    segments: Annotated[int, typer.Option(help="Segments, each of every n-th line.")] = 1,
    interleaved: Annotated[
        bool, typer.Option(help="Acquire a line of all slices and contrasts before the next.")
    ] = False,
    alternating: Annotated[bool, typer.Option(help="Read every second line backwards.")] = False,
    oversampling: Annotated[int, typer.Option(help="Readout oversampling.")] = 2,
    phase_oversampling: Annotated[
        float, typer.Option(help="Encoded over reconstructed field of view along the lines.")
    ] = 1,
    recon_matrix: Annotated[
        str | None,
        typer.Option(
            help="Matrix that the header asks for: N, or YxX.", show_default="that of --matrix"
        ),
    ] = None,
    fov: Annotated[
        str | None,
        typer.Option(
            help="Field of view in mm: N, or YxX; a small one folds.", show_default="fits the head"
        ),
    ] = None,
    snr: Annotated[
        float, typer.Option(help="Grey matter over the sd of each real component of the noise.")
    ] = 30,
    contrast: Annotated[
        str, typer.Option(help="Contrast: t1, t2 or flair; or several, as t1,t2.")
    ] = "t2",
    acceleration: Acceleration = 1,
    calibration: Calibration = 24,
    mask: Mask = "equispaced",
    axis: Axis = "phase",
    calibration_mode: CalibrationMode = "embedded",
    calibration_last: CalibrationLast = False,
    partial_fourier: PartialFourier = 1,
    partial_echo: PartialEcho = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Simulate a scan of a head phantom, with its truth.

    It has several coils, a noise scan is included, and lines are left out where -R is above 1. The
    truth lies in the same file: truth/image (slice, y, x), truth/coil_maps (slice, coil, y, x) and
    truth/noise_covariance (coil, coil); with several contrasts truth/image has a leading axis.
    """
    from scoremri_core.paths import check_new
    from scoremri_core.scans.files import write_scan
    from scoremri_core.simulation.simulation import SimulatedScan
    from scoremri_core.simulation.undersampling import accelerate

    check_new(output, overwrite)
    scan = SimulatedScan(
        _sides("matrix", matrix),
        coils,
        slices,
        repetitions,
        oversampling,
        snr,
        contrast,
        seed,
        partitions=partitions,
        phases=phases,
        sets=sets,
        averages=averages,
        segments=segments,
        interleaved=interleaved,
        alternating=alternating,
        phase_oversampling=phase_oversampling,
        recon_matrix=None if recon_matrix is None else _sides("recon matrix", recon_matrix),
        fov=None if fov is None else _sides("fov", fov),
    )
    full = acceleration == partial_fourier == partial_echo == 1
    if full and calibration_mode != "embedded":
        raise InputError(f"calibration mode '{calibration_mode}': a full scan needs none, see -R")
    if full:
        write_scan(output, scan.header, scan, arrays=scan.truth)
        logger.info("%s: fully sampled", output)
        return
    thinned = accelerate(
        scan,
        mask,
        acceleration,
        calibration,
        axis,
        seed,
        calibration_mode=calibration_mode,
        calibration_last=calibration_last,
        partial_fourier=partial_fourier,
        echo=partial_echo,
    )
    write_scan(output, thinned.header, thinned, arrays=scan.truth)
    logger.info("%s: true acceleration %.2f", output, thinned.mask.acceleration)


def _sides(name: str, text: str) -> tuple[int, int]:
    """Parse N or YxX."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"{name} '{text}': expected N, or YxX such as 192x160")
    return int(sides[0]), int(sides[-1])
