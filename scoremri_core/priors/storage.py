"""Weights on disk: safetensors with a JSON card."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from scoremri_core.errors import InputError
from scoremri_core.isolation import isolated
from scoremri_core.paths import replacing
from scoremri_core.priors.edm import EdmPrior, EdmUnet
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.ncsnv2_prior import NCSNv2Prior
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.priors.residual_unet import ResidualUnet, ResidualUnetPrior
from scoremri_core.priors.unet import DenoisingUnet

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "weights"
DEFAULT = "default"  # prior of the sampler "posterior"; other samplers may have another default
ALIASES = {"unet": DEFAULT}  # for any sampler


@dataclass(frozen=True)
class Architecture:
    """A network class and its prior class.

    Attributes
    ----------
    network : type
        Its `config` holds its arguments.
    prior : callable
        Makes the prior of a network and a card.
    """

    network: type[nn.Module]
    prior: Callable[[Any, dict[str, Any]], ModelPrior]


ARCHITECTURES = {
    "unet": Architecture(DenoisingUnet, NetworkPrior),
    "ncsnv2": Architecture(NCSNv2, NCSNv2Prior),
    "residual-unet": Architecture(ResidualUnet, ResidualUnetPrior),
    "edm-unet": Architecture(EdmUnet, EdmPrior),
}


def shipped_priors() -> list[str]:
    """Return the names of the priors that come with the package.

    Returns
    -------
    list of str
        Sorted.
    """
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def load_prior(name_or_path: str | Path) -> ModelPrior:
    """Load a prior for reconstruction; warn if its error was never measured.

    Parameters
    ----------
    name_or_path : str or Path
        As for `read_prior`.

    Returns
    -------
    ModelPrior

    Raises
    ------
    InputError
        As `read_prior`.
    """
    prior = read_prior(name_or_path)
    if not prior.is_measured:
        logger.warning(
            "prior %s: its error was never measured; run scoremri measure to know how far to trust "
            "the images and their uncertainty",
            prior.name,
        )
    return prior


@isolated
def read_prior(name_or_path: str | Path) -> ModelPrior:
    """Read a prior and check its weights against its card.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a shipped prior, or path of a .safetensors file with its card (.json) in the same
        folder.

    Returns
    -------
    ModelPrior

    Raises
    ------
    InputError
        Unknown name, missing card, unknown architecture or configuration, or weights that differ
        from the card.
    """
    path = _found(name_or_path)
    if not path.is_file():
        raise InputError(f"{path}: no such prior")
    card = _read_card(path.with_suffix(".json"))
    if sha256(path) != card["sha256"]:
        raise InputError(f"{path}: the weights differ from the SHA-256 in their card")
    if card["architecture"] not in ARCHITECTURES:
        raise InputError(
            f"{path.with_suffix('.json')}: architecture {card['architecture']!r}, expected one "
            f"of {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[card["architecture"]]
    try:
        model = architecture.network(**card["config"])
        weights = load_file(path)
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not the weights its card describes ({error})") from error
    return architecture.prior(model.eval().requires_grad_(False), card)


def read_card(name_or_path: str | Path) -> dict[str, Any]:
    """Read the card of a prior.

    Parameters
    ----------
    name_or_path : str or Path
        As for `load_prior`.

    Returns
    -------
    dict

    Raises
    ------
    InputError
        The card is missing.
    """
    return _read_card(_found(name_or_path).with_suffix(".json"))


def save_prior(path: Path, model: nn.Module, card: dict[str, Any], half: bool = True) -> None:
    """Write weights (.safetensors) and their card (.json).

    Parameters
    ----------
    path : Path
        Of the weights; its stem is the prior's name.
    model : nn.Module
        A network of one of `ARCHITECTURES`.
    card : dict
        Its architecture and SHA-256 are added.
    half : bool, optional
        Store the weights in half precision.

    Raises
    ------
    InputError
        A network of another kind.
    """
    names = [name for name, known in ARCHITECTURES.items() if type(model) is known.network]
    if not names:
        raise InputError(f"{path}: a {type(model).__name__} cannot be stored as a prior")
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    weights = {
        name: (value.to(dtype) if value.is_floating_point() else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    # both files are replaced after both are written
    with replacing(path.with_suffix(".json")) as partial_card, replacing(path) as partial:
        # not by safetensors' save_file, which restricts permissions and does not report a full disk
        partial.write_bytes(save(weights))
        card = {
            **card,
            "name": path.stem,
            "architecture": names[0],
            "config": model.config,
            "parameters": sum(p.numel() for p in model.parameters()),
            "sha256": sha256(partial),
        }
        partial_card.write_text(json.dumps(card, indent=2) + "\n")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _found(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".safetensors":
        return path
    name = ALIASES.get(str(name_or_path), str(name_or_path))
    if name not in shipped_priors():
        raise InputError(
            f"prior {name!r}: expected one of {', '.join((*shipped_priors(), *ALIASES))} or the "
            "path of a .safetensors file"
        )
    return SHIPPED / f"{name}.safetensors"


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: the card of the weights is missing")
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: expected JSON ({error})") from error
    for field in ("name", "architecture", "config", "sha256"):
        if field not in card:
            raise InputError(f"{path}: the field {field!r} is missing")
    return card
