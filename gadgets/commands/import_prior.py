"""Turn a checkpoint of a public code base into a prior."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

logger = logging.getLogger(__name__)

LICENCE = (
    "Not stated by the checkpoint: the terms of its authors and of its training data apply. "
    "The code of ncsnv2 and of csgm-mri-langevin is under the MIT licence; weights trained on "
    "fastMRI come under the fastMRI data sharing agreement too."
)


def import_prior(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="File of ncsnv2 or csgm-mri-langevin.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME.safetensors", help="New prior.")
    ],
    rescaled: Annotated[
        bool,
        typer.Option(
            "--rescaled",
            help="The network takes images as they are, not as 2 x - 1 "
            "(rescaled or logit_transform in its configuration).",
        ),
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the weights, for the card.", show_default="not stated"),
    ] = None,
) -> None:
    """Import an NCSNv2 as a prior, of a public checkpoint.

    Plain, Deeper or Deepest: weights as safetensors, and a card beside them. The moving average of
    the weights is taken where the checkpoint holds one. Nothing but tensors is unpickled. The
    result is a prior for every command: --prior NAME.safetensors.
    """
    from scoremri_core.errors import InputError
    from scoremri_core.priors import save_prior
    from scoremri_core.priors.checkpoints import read_ncsnv2
    from scoremri_core.priors.storage import sha256
    from scoremri_core.scans.files import check_folder, check_readable, check_writable, writing

    path = output if output.suffix == ".safetensors" else Path(f"{output}.safetensors")
    check_readable(checkpoint)
    check_folder(path.parent)
    if path.parent.is_dir():
        check_writable(path, checkpoint)
    found = read_ncsnv2(checkpoint, rescaled)
    variant, channels = found.model.config["variant"], found.model.config["channels"]
    if channels != 2:
        raise InputError(
            f"{checkpoint}: its images have {channels} channels: expected 2, real and imaginary "
            "part"
        )
    sigmas = found.model.sigmas
    source = {"file": checkpoint.name, "sha256": sha256(checkpoint), "weights": found.weights}
    training = {"epoch": found.epoch, "step": found.step}
    card = {
        "description": f"NCSNv2 ({variant}) of Song and Ermon 2020, arXiv 2006.09011.",
        "source": source | {k: v for k, v in training.items() if v is not None},
        "sigma_range": [float(sigmas.min()), float(sigmas.max())],
        "sigma_levels": len(sigmas),
        "licence": licence or LICENCE,
    }
    with writing(path):
        save_prior(path, found.model, card, half=False)
    logger.info(
        "%s: NCSNv2 (%s), %s, %d noise levels from %g to %g",
        path, variant, found.weights, len(sigmas), sigmas[0], sigmas[-1],
    )  # fmt: skip
