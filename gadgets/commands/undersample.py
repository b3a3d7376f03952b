"""Drop lines of a fully sampled scan, as an accelerated scan would have left them out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from scoremri_core.scans.masks import CALIBRATION_MODES, KINDS

logger = logging.getLogger(__name__)


def undersample(
    source: Annotated[Path, typer.Argument(metavar="IN.h5", help="Fully sampled ISMRMRD file.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5", help="New file.")],
    mask: Annotated[str, typer.Option(help=f"Sampling pattern: {', '.join(KINDS)}.")] = KINDS[0],
    acceleration: Annotated[
        float, typer.Option("-R", "--acceleration", help="Acceleration outside the calibration.")
    ] = 4,
    calibration: Annotated[int, typer.Option(help="Fully sampled lines around the centre.")] = 24,
    axis: Annotated[
        str, typer.Option(help="Encode steps to drop: phase; of a 3D scan also partition, both.")
    ] = "phase",
    seed: Annotated[int, typer.Option(help="Seed of a random pattern.")] = 0,
    calibration_mode: Annotated[
        str, typer.Option(help=f"How the calibration is scanned: {', '.join(CALIBRATION_MODES)}.")
    ] = CALIBRATION_MODES[0],
    calibration_last: Annotated[
        bool, typer.Option(help="A reference scan comes after the imaging lines.")
    ] = False,
    partial_fourier: Annotated[
        float, typer.Option(help="Share of the phase-encode lines that is acquired.")
    ] = 1,
    partial_echo: Annotated[float, typer.Option(help="Share of each readout acquired.")] = 1,
    group: Annotated[str, typer.Option(help="Group of the scan in the file.")] = "dataset",
) -> None:
    """Drop lines of a fully sampled scan and set flags and header as a scanner would."""
    from scoremri_core.scans.files import open_scan, write_scan
    from scoremri_core.scans.undersampling import accelerate

    with open_scan(source, group) as scan:
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
        write_scan(output, thinned.header, thinned, group, waveforms=scan.waveforms())
    logger.info(
        "%s: %s R = %g with %d calibration lines, true acceleration %.2f",
        output, mask, acceleration, calibration, thinned.mask.acceleration,
    )  # fmt: skip
