"""Export a prior as TorchScript."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Overwrite, complete_priors

logger = logging.getLogger(__name__)


def export(
    prior: Annotated[
        str,
        typer.Argument(
            metavar="PRIOR",
            help="Name of a shipped prior, or path.",
            autocompletion=complete_priors,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME.pt", help="TorchScript module.")
    ],
    overwrite: Overwrite = False,
) -> None:
    """Export a prior as a TorchScript module denoise(x, sigma).

    The module takes complex images (batch, y, x) of any size, scaled to a 99th percentile of about
    1, and noise levels (batch,), the sd of each real component, and returns the denoised images.
    Load it with torch.jit.load in Python and C++, or with BART 1.0 and later: bart sample
    --external-graph NAME.pt --real-valued.
    """
    from scoremri_core.paths import check_new, replacing
    from scoremri_core.priors.export import to_torchscript
    from scoremri_core.priors.storage import read_prior

    check_new(output, overwrite, prior)
    # opens the output file before the export
    with replacing(output) as partial:
        archive = to_torchscript(read_prior(prior))
        partial.write_bytes(archive)
    logger.info("wrote %s, %.1f MB", output, len(archive) / 1e6)
