"""Undersample a fully sampled scan retrospectively."""

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
    Group,
    Mask,
    Overwrite,
    PartialEcho,
    PartialFourier,
    Seed,
)

logger = logging.getLogger(__name__)


def undersample(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Fully sampled raw data.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT.h5", help="Undersampled scan.")
    ],
    mask: Mask = "equispaced",
    acceleration: Acceleration = 4,
    calibration: Calibration = 24,
    axis: Axis = "phase",
    seed: Seed = 0,
    calibration_mode: CalibrationMode = "embedded",
    calibration_last: CalibrationLast = False,
    partial_fourier: PartialFourier = 1,
    partial_echo: PartialEcho = 1,
    group: Group = "dataset",
    overwrite: Overwrite = False,
) -> None:
    """Undersample a full scan, with a scanner's flags and header."""
    from scoremri_core.paths import check_new
    from scoremri_core.scans.files import write_scan
    from scoremri_core.scans.formats.opening import open_any
    from scoremri_core.simulation.undersampling import accelerate

    check_new(output, overwrite, source)
    with open_any(source, group) as scan:
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
        write_scan(output, undersampled.header, undersampled, group, waveforms=scan.waveforms())
    logger.info(
        "%s: %s R = %g with %d calibration lines, true acceleration %.2f",
        output, mask, acceleration, calibration, undersampled.mask.acceleration,
    )  # fmt: skip
