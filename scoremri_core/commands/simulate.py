"""Simulate a scan of the head phantom."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from scoremri_core.errors import InputError
from scoremri_core.masks import KINDS

logger = logging.getLogger(__name__)


def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5", help="New file.")],
    matrix: Annotated[
        str, typer.Option(help="Lines and readout samples of the image: N, or YxX.")
    ] = "192",
    coils: Annotated[int, typer.Option(help="Receive coils.")] = 8,
    slices: Annotated[int, typer.Option(help="Slices.")] = 1,
    repetitions: Annotated[int, typer.Option(help="Repetitions, each with noise of its own.")] = 1,
    oversampling: Annotated[int, typer.Option(help="Readout oversampling.")] = 2,
    snr: Annotated[
        float, typer.Option(help="Grey matter over the sd of each real component of the noise.")
    ] = 30,
    contrast: Annotated[str, typer.Option(help="Contrast: t1, t2 or flair.")] = "t2",
    acceleration: Annotated[
        float, typer.Option("-R", "--acceleration", help="Acceleration outside the calibration.")
    ] = 1,
    calibration: Annotated[int, typer.Option(help="Calibration lines, when accelerated.")] = 24,
    mask: Annotated[str, typer.Option(help=f"Sampling pattern: {', '.join(KINDS)}.")] = KINDS[0],
    seed: Annotated[int, typer.Option(help="Seed of anatomy, noise and pattern.")] = 0,
) -> None:
    """Simulate a multi-coil scan of a head phantom, noise scan included.

    The truth lies in the same file: truth/image (slice, y, x), truth/coil_maps (slice, coil, y, x)
    and truth/noise_covariance (coil, coil).
    """
    from scoremri_core.scans import write_scan
    from scoremri_core.simulation import SimulatedScan
    from scoremri_core.undersampling import accelerate

    scan = SimulatedScan(
        _sides(matrix), coils, slices, repetitions, oversampling, snr, contrast, seed
    )
    if acceleration == 1:
        write_scan(output, scan.header, scan, arrays=scan.truth)
        logger.info("%s: fully sampled", output)
    else:
        thinned = accelerate(scan, mask, acceleration, calibration, seed=seed)
        write_scan(output, thinned.header, thinned, arrays=scan.truth)
        logger.info("%s: true acceleration %.2f", output, thinned.mask.acceleration)


def _sides(matrix: str) -> tuple[int, int]:
    """Parse N or YxX."""
    sides = matrix.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"matrix '{matrix}': expected N, or YxX such as 192x160")
    return int(sides[0]), int(sides[-1])
