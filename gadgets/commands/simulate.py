"""Simulate a scan of the head phantom."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

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
)
from gadgets.commands.settings import from_settings
from scoremri_core.errors import InputError
from scoremri_core.simulation.parameters import ScanParameters

logger = logging.getLogger(__name__)


@from_settings(ScanParameters)
def simulate(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT.h5", help="Simulated scan.")
    ],
    *,
    settings: dict[str, Any],
    acceleration: Acceleration = 1,
    calibration: Calibration = 24,
    mask: Mask = "equispaced",
    axis: Axis = "phase",
    calibration_mode: CalibrationMode = "embedded",
    calibration_last: CalibrationLast = False,
    partial_fourier: PartialFourier = 1,
    partial_echo: PartialEcho = 1,
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
    scan = SimulatedScan(**settings)
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
        scan.seed,
        calibration_mode=calibration_mode,
        calibration_last=calibration_last,
        partial_fourier=partial_fourier,
        echo=partial_echo,
    )
    write_scan(output, undersampled.header, undersampled, arrays=scan.truth)
    logger.info("%s: true acceleration %.2f", output, undersampled.mask.acceleration)
