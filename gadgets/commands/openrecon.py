"""Write what packs the server for OpenRecon, the container platform of Siemens scanners."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import choice
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

DEVICES = ("cuda", "cpu")  # of gadgets.service.openrecon.bundle, slower to import


def openrecon(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="For the files.")
    ],
    device: Annotated[
        str, choice(DEVICES, "--device", help="What the container computes on; cuda is CUDA 11.8.")
    ] = "cuda",
    vendor: Annotated[
        str, typer.Option(metavar="NAME", help="Who answers for it, in all file names.")
    ] = "scoremri",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
) -> None:
    """Write what packs the server for OpenRecon.

    FOLDER gets the label, OpenReconLabel.json; the Dockerfile and the manual,
    OpenRecon_VENDOR_scoremri_VX.Y.Z.{Dockerfile,pdf}; and build.sh, which makes the .tar and .zip
    of that name where Docker is. The bundle is for research: its label says so.
    """
    from gadgets.service.openrecon.bundle import Bundle
    from gadgets.service.openrecon.files import files
    from scoremri_core.paths import check_folder, replacing

    bundle = Bundle(vendor, device)
    check_folder(output)
    writers = files(bundle)
    there = [name for name in writers if (output / name).exists()]
    if there and not overwrite:
        raise InputError(f"{output / there[0]} is there already: --overwrite replaces it")
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:  # all are written before the first takes its place
        for name, write in writers.items():
            partial = stack.enter_context(replacing(output / name))
            write(partial)
            if name.endswith(".sh"):
                partial.chmod(0o755)
    logger.info("%s: %s", output, ", ".join(writers))
