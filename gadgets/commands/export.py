"""Write a prior as TorchScript, for programs that know nothing of ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Overwrite

logger = logging.getLogger(__name__)


def export(
    prior: Annotated[
        str, typer.Argument(metavar="PRIOR", help="Name of a shipped prior, or a path.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME.pt", help="TorchScript module.")
    ],
    overwrite: Overwrite = False,
) -> None:
    """Export a prior as a TorchScript module denoise(x, sigma).

    It takes complex images (batch, y, x) of any size, scaled so that the 99th percentile is about
    1, and noise levels (batch,), the sd of each real component; it returns the denoised images.
    torch.jit.load reads it in Python and C++, and BART from version 1.0 on: bart sample
    --external-graph NAME.pt --real-valued.
    """
    from scoremri_core import load_prior
    from scoremri_core.paths import check_new, replacing
    from scoremri_core.priors.script import to_torchscript

    check_new(output, overwrite, prior)
    # its place is tried before the work
    with replacing(output) as partial:
        archive = to_torchscript(load_prior(prior))
        partial.write_bytes(archive)
    logger.info("wrote %s, %.1f MB", output, len(archive) / 1e6)
