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
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT.h5", help="Simulated scan.")
    ],
    matrix: Annotated[
        str,
        typer.Option(metavar="N|YxX", help="Matrix size: lines x readout samples."),
    ] = "192",
    coils: Annotated[int, typer.Option(metavar="N", help="Number of receive coils.")] = 8,
    slices: Annotated[int, typer.Option(metavar="N", help="Number of slices.")] = 1,
    partitions: Annotated[
        int, typer.Option(metavar="N", help="Number of partitions; 3D if above 1.")
    ] = 1,
    repetitions: Annotated[
        int, typer.Option(metavar="N", help="Number of repetitions, with independent noise.")
    ] = 1,
    phases: Annotated[int, typer.Option(metavar="N", help="Number of phases.")] = 1,
    sets: Annotated[int, typer.Option(metavar="N", help="Number of sets.")] = 1,
    averages: Annotated[int, typer.Option(metavar="N", help="Number of averages.")] = 1,
    segments: Annotated[
        int, typer.Option(metavar="N", help="Number of segments, interleaved line by line.")
    ] = 1,
    interleaved: Annotated[
        bool, typer.Option(help="Interleave slices and contrasts line by line.")
    ] = False,
    alternating: Annotated[bool, typer.Option(help="Reverse every second readout.")] = False,
    oversampling: Annotated[
        int, typer.Option(metavar="N", help="Readout oversampling factor.")
    ] = 2,
    phase_oversampling: Annotated[
        float,
        typer.Option(
            metavar="X", help="Phase oversampling: encoded over reconstructed field of view."
        ),
    ] = 1,
    recon_matrix: Annotated[
        str | None,
        typer.Option(
            metavar="N|YxX",
            help="Reconstruction matrix in the header.",
            show_default="--matrix",
        ),
    ] = None,
    fov: Annotated[
        str | None,
        typer.Option(
            metavar="MM|YxX",
            help="Field of view in mm; the object aliases if it is smaller.",
            show_default="the head's size",
        ),
    ] = None,
    snr: Annotated[
        float,
        typer.Option(
            metavar="X", help="Signal of grey matter over the noise sd of each real component."
        ),
    ] = 30,
    contrast: Annotated[
        str, typer.Option(metavar="LIST", help="Contrast t1, t2 or flair; several as t1,t2.")
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
    """Simulate a scan of a head phantom, with ground truth.

    A multi-coil scan with a noise scan, undersampled if -R is above 1. The file also holds the
    ground truth: truth/image (slice, y, x), with a leading axis for several contrasts,
    truth/coil_maps (slice, coil, y, x) and truth/noise_covariance (coil, coil).
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
        raise InputError(
            f"calibration mode '{calibration_mode}': only for an undersampled scan (-R above 1)"
        )
    if full:
        write_scan(output, scan.header, scan, arrays=scan.truth)
        logger.info("%s: fully sampled", output)
        return
    undersampled = accelerate(
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
    write_scan(output, undersampled.header, undersampled, arrays=scan.truth)
    logger.info("%s: true acceleration %.2f", output, undersampled.mask.acceleration)


def _sides(name: str, text: str) -> tuple[int, int]:
    """Parse N or YxX."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"{name} '{text}': expected N, or YxX such as 192x160")
    return int(sides[0]), int(sides[-1])
