"""Import a public checkpoint as a prior."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.options import Overwrite

logger = logging.getLogger(__name__)

LICENCE = (
    "Not stated by the checkpoint: the terms of its authors and of its training data apply. "
    "Weights of csgm-mri-langevin, and all others trained on fastMRI, are also subject to the "
    "fastMRI data sharing agreement."
)


def import_prior(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="Checkpoint of ncsnv2, csgm-mri-langevin or EDM."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME.safetensors", help="Imported prior.")
    ],
    rescaled: Annotated[
        bool,
        typer.Option(
            "--rescaled",
            help="The network takes images x, not 2 x - 1 "
            "(rescaled or logit_transform in its configuration).",
        ),
    ] = False,
    sigma_data: Annotated[
        float, typer.Option(metavar="X", help="Sd of the training images, for a U-Net of EDM.")
    ] = 0.5,
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Licence of the weights, for the card.", show_default="not stated"
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Import a checkpoint of another program as a prior.

    Supported are NCSNv2 (plain, deeper or deepest) and a saved state dictionary of a DDPM++ U-Net
    of EDM. The moving average of the weights is used if the file has one. Only tensors are
    unpickled. Use the result with --prior NAME.safetensors.
    """
    from scoremri_core.errors import InputError
    from scoremri_core.paths import check_new, check_readable
    from scoremri_core.priors import save_prior
    from scoremri_core.priors.checkpoints import read_foreign
    from scoremri_core.priors.storage import sha256

    path = output if output.suffix == ".safetensors" else Path(f"{output}.safetensors")
    check_readable(checkpoint)
    for place in (path, path.with_suffix(".json")):
        check_new(place, overwrite, checkpoint, new_folder=True)
    if not 0 < sigma_data < math.inf:
        raise InputError(f"sigma_data is {sigma_data}: expected above 0")
    found = read_foreign(checkpoint, rescaled, sigma_data)
    channels = found.model.config.get("channels", 2)
    if channels != 2:
        raise InputError(
            f"{checkpoint}: images of {channels} channels, expected 2 (real and imaginary part)"
        )
    message, described = _described(found.model)
    source = {"file": checkpoint.name, "sha256": sha256(checkpoint), "weights": found.weights}
    training = {"epoch": found.epoch, "step": found.step}
    card = {
        **described,
        "source": source | {k: v for k, v in training.items() if v is not None},
        "licence": licence or LICENCE,
    }
    save_prior(path, found.model, card, half=False)
    logger.info("%s: %s", path, message.format(weights=found.weights))


def _described(model: Any) -> tuple[str, dict[str, Any]]:
    """Return a log message and card entries that describe a network."""
    from scoremri_core.priors.ncsnv2 import NCSNv2

    if isinstance(model, NCSNv2):
        variant, sigmas = model.config["variant"], model.sigmas
        message = f"NCSNv2 ({variant}), {{weights}}, {len(sigmas)} noise levels from "
        return f"{message}{float(sigmas[0]):g} to {float(sigmas[-1]):g}", {
            "description": f"NCSNv2 ({variant}) of Song and Ermon 2020, arXiv 2006.09011.",
            "sigma_range": [float(sigmas.min()), float(sigmas.max())],
            "sigma_levels": len(sigmas),
        }
    description = "DDPM++ U-Net of EDM, Karras et al. 2022, arXiv 2206.00364"
    return f"{description}, {{weights}}", {"description": f"{description}."}
