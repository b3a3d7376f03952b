"""Weights on disk: safetensors and, beside them, a JSON card that says what they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from scoremri_core.errors import InputError
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.priors.unet import DenoisingUnet

SHIPPED = Path(__file__).parent / "weights"
ARCHITECTURES = {"unet": DenoisingUnet}


def shipped_priors() -> list[str]:
    """Names of the priors that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def load_prior(name_or_path: str | Path) -> NetworkPrior:
    """Load a prior, checking its weights against its card.

    Parameters
    ----------
    name_or_path : the name of a shipped prior, or the path of a .safetensors file whose card
        lies beside it with the suffix .json.

    Raises
    ------
    InputError : unknown name, missing card, unknown architecture, or weights that differ from
        what the card describes.
    """
    path = Path(name_or_path)
    if path.suffix != ".safetensors":
        path = SHIPPED / f"{name_or_path}.safetensors"
        if str(name_or_path) not in shipped_priors():
            raise InputError(
                f"prior {str(name_or_path)!r}: expected one of {', '.join(shipped_priors())} or "
                "the path of a .safetensors file"
            )
    if not path.is_file():
        raise InputError(f"{path}: no such prior")
    card = _read_card(path.with_suffix(".json"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["sha256"]:
        raise InputError(f"{path}: the weights differ from the SHA-256 in their card")
    if card["architecture"] not in ARCHITECTURES:
        raise InputError(
            f"{path.with_suffix('.json')}: architecture {card['architecture']!r}, expected one "
            f"of {', '.join(ARCHITECTURES)}"
        )
    model = ARCHITECTURES[card["architecture"]](**card["config"])
    try:
        weights = load_file(path)
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: not the weights its card describes ({error})") from error
    return NetworkPrior(model.eval().requires_grad_(False), card)


def save_prior(path: Path, model: DenoisingUnet, card: dict[str, Any]) -> None:
    """Write half-precision weights to `path` (.safetensors) and the card beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: v.to(torch.float16).contiguous() for name, v in model.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    card = {
        **card,
        "name": path.stem,
        "architecture": "unet",
        "config": model.config,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sha256": hashlib.sha256(partial.read_bytes()).hexdigest(),
    }
    partial.replace(path)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: the card of the weights beside it is missing")
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: expected JSON ({error})") from error
    for field in ("name", "architecture", "config", "sha256"):
        if field not in card:
            raise InputError(f"{path}: the field {field!r} is missing")
    return card
