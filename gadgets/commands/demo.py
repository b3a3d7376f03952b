"""Demonstrate the pipeline on a simulated scan."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.options import Overwrite

logger = logging.getLogger(__name__)


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.")
    ] = Path("scoremri-demo"),
    seed: Annotated[
        int, typer.Option(metavar="N", help="Random seed of the simulated head.", min=0)
    ] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Simulate a head scan at R = 4, reconstruct and plot it.

    Replays the scan through the chain that a scanner would use. DIR gets scan.h5 (the scan and its
    ground truth), out.h5 (mean, standard deviation and samples) and demo.png.
    """
    import numpy as np

    from gadgets.commands.replay import replay
    from gadgets.commands.report_images import read_frames
    from gadgets.commands.simulate import simulate
    from scoremri_core.paths import check_folder, check_new, replacing
    from scoremri_core.studies.evaluate.pictures import comparison

    started = time.monotonic()
    check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    scan, images, picture = (output / name for name in ("scan.h5", "out.h5", "demo.png"))
    for path in (scan, images, picture):
        check_new(path, overwrite)
    simulate(scan, acceleration=4, seed=seed, overwrite=overwrite)
    replay(scan, images, properties=["outputs=mean,std,samples"], overwrite=overwrite)
    title = "scoremri demo: simulated head, 8 coils, every 4th line and 24 calibration lines"
    (shown,) = read_frames(images, "dataset", 1).frames
    if shown.std is None:
        logger.warning("no standard deviation: the frame was reconstructed classically")
    with replacing(picture) as partial:
        comparison(
            partial,
            *_truth_and_zero_filled(scan),
            shown.mean,
            np.full(shown.mean.shape, np.nan) if shown.std is None else shown.std,
            title,
            sample=shown.samples[0] if shown.samples else None,
            geometry=shown.geometry,
        )
    logger.info("wrote %s, %.0f s in total", picture, time.monotonic() - started)
    typer.echo(f"Picture: {picture}")


def _truth_and_zero_filled(path: Path) -> tuple[Any, Any]:
    """Return the true image and the zero-filled image, combined with the true coil maps."""
    import numpy as np

    from scoremri_core.mri.fourier import to_image
    from scoremri_core.scans.files import open_hdf5, open_scan
    from scoremri_core.scans.gridding import zero_filled_kspace

    with open_hdf5(path) as file:
        truth, maps = file["truth/image"][0], file["truth/coil_maps"][0]
    with open_scan(path) as scan:
        kspace = zero_filled_kspace(scan)[0]
    return truth, np.sum(maps.conj() * to_image(kspace), axis=0)
