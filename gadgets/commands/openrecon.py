"""Write the files for OpenRecon, the container platform of Siemens scanners."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Overwrite, choice

logger = logging.getLogger(__name__)

DEVICES = ("cuda", "cpu")  # copy of gadgets.openrecon.bundle.DEVICES, which is slow to import


def openrecon(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Output folder.")
    ],
    device: Annotated[
        str, choice(DEVICES, "--device", help="Device of the container; cuda is CUDA 11.8.")
    ] = "cuda",
    vendor: Annotated[
        str, typer.Option(metavar="NAME", help="Vendor in the label and the file names.")
    ] = "scoremri",
    overwrite: Overwrite = False,
) -> None:
    """Write the files of a container for OpenRecon.

    FOLDER gets the label, OpenReconLabel.json; the manual, README.md; the Dockerfile and the manual
    as PDF, OpenRecon_VENDOR_scoremri_VX.Y.Z.{Dockerfile,pdf}; and build.sh, which builds the .tar
    and .zip of that name with Docker. Label, README.md and params.sh are a recipe of
    github.com/neurodesk/openrecon. The label is marked RESEARCH.
    """
    from gadgets.openrecon.bundle import Bundle
    from gadgets.openrecon.files import files
    from scoremri_core.paths import check_new, replacing

    bundle = Bundle(vendor, device)
    writers = files(bundle)
    for name in writers:
        check_new(output / name, overwrite, new_folder=True)
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:  # replace files only when all are written
        for name, write in writers.items():
            partial = stack.enter_context(replacing(output / name))
            write(partial)
            if name.endswith(".sh"):
                partial.chmod(0o755)
    logger.info("%s: %s", output, ", ".join(writers))
