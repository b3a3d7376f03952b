"""Priors on disk with their cards: training data and settings, measured error, limits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoremri_core.errors import InputError
from scoremri_core.paths import replacing, writing
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.storage import ARCHITECTURES, read_prior, save_prior
from scoremri_core.training import measure
from scoremri_core.training.loop import LOG, read_checkpoint
from scoremri_core.training.manifest import Source, describe_data, select_split
from scoremri_core.training.settings import Network, Settings
from scoremri_core.training.slices import load_slices
from scoremri_core.training.width import calibrate_variance

logger = logging.getLogger(__name__)

PHOTOGRAPH = "photograph"  # contrast of photographs in a manifest


def as_prior(model: nn.Module, card: dict[str, Any] | None = None) -> ModelPrior:
    """Return the prior of a network.

    Parameters
    ----------
    model : nn.Module
        A network of one of `ARCHITECTURES`.
    card : dict, optional

    Returns
    -------
    ModelPrior
    """
    architecture = next(a for a in ARCHITECTURES.values() if type(model) is a.network)
    return architecture.prior(model, card or {"name": "in training"})


def write_prior(
    checkpoint: Path,
    path: Path,
    sources: Sequence[Source],
    entries: Mapping[str, Any] | None = None,
) -> None:
    """Write the moving average of a run, finished or not, as a prior.

    Parameters
    ----------
    checkpoint : Path
        checkpoint.pt of the run, with log.jsonl in the same folder.
    path : Path
        The .safetensors file; the card is written to the same folder.
    sources : sequence of Source
        Data of the run.
    entries : mapping, optional
        Replace or add entries of the card.

    Raises
    ------
    InputError
        Not a checkpoint; no training data.
    """
    state = read_checkpoint(checkpoint)
    settings = Settings.from_json(state["settings"])
    model = settings.network(begin=False)
    try:
        model.load_state_dict(state["average"])
    except RuntimeError as error:
        raise InputError(f"{checkpoint}: the weights do not fit its settings") from error
    training = select_split(sources, "train")
    card = {
        "description": "Denoiser of complex MR images whose 99th percentile is about 1.",
        "command": settings.command,
        "seed": settings.seed,
        "steps": state["step"],
        **_last_record(checkpoint.with_name(LOG), state["step"]),
        "training_data": describe_data(training),
        "sigma_range": settings.sigma_range,
    }
    for name, prior in (("start", settings.start), ("teacher", settings.teacher)):
        if prior is not None:
            card[name] = _provenance(read_prior(prior).card)
    _save(path, model, card | dict(entries or {}))


def measure_prior(
    path: Path,
    sources: Sequence[Source],
    cache: Path | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
    width: bool = True,
) -> None:
    """Measure a prior on validation and test data and update its card.

    The factors on the error variance are chosen on the validation data only.

    Parameters
    ----------
    path : Path
        The .safetensors file, which is not changed.
    sources : sequence of Source
        Data with a validation split.
    cache : Path, optional
        See `load_slices`.
    device : str, optional
    progress : callable, optional
        See `calibrate_variance`.
    width : bool, optional
        Choose the factors, which only the sampler "posterior" uses.

    Raises
    ------
    InputError
        Not a prior; no validation data; a file that cannot be read.
    """
    prior = read_prior(path).to(torch.device(device))
    # the prior reads its card while it is measured
    card = prior.card
    card.pop("test", None)
    validation = select_split(sources, "val")
    slices = load_slices(validation, cache)
    card["validation_data"] = describe_data(validation)
    card |= measure.denoiser_error(prior, slices, device)
    card["image_spectrum"] = measure.image_spectrum(slices)
    if width:
        card |= calibrate_variance(prior, slices, device, progress)
    if test := [source for source in sources if source.split == "test"]:
        error = measure.denoiser_error(prior, load_slices(test, cache), device)
        card["test"] = {"data": describe_data(test), **error}
    card["limits"] = limits(card)
    with replacing(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(card, indent=2) + "\n")
    logger.info("wrote %s and its card", path)


def limits(card: dict[str, Any]) -> list[str]:
    """Return the limits of a prior as sentences for its users.

    Parameters
    ----------
    card : dict
        With `validation_data`, and optionally `training_data`, `test` and `variance_calibration`.

    Returns
    -------
    list of str
    """
    known = ["For research only: nothing here has been validated for diagnosis."]
    if "training_data" in card:
        scanned = _of_subjects(card["training_data"])
        contrasts = {name for entry in scanned for name in entry["contrasts"].split(", ")}
        photographs = " and photographs" if len(scanned) < len(card["training_data"]) else ""
        known.append(
            f"Trained on {_subjects(scanned)} ({', '.join(sorted(contrasts))}){photographs}; "
            "neither its error nor its uncertainty was measured for other anatomy, contrasts or "
            "pathology."
        )
    test = card.get("test", {}).get("data", [])
    known += [
        f"Measured on {_subjects(card['validation_data'])} for validation and "
        f"{_subjects(test)} for test"
        + (
            "; variance_scale and inflation were chosen on the former, on simulated scans."
            if "variance_calibration" in card
            else "."
        ),
        "The phase of images stored as magnitudes is simulated.",
        "It denoises 2D slices independently, scaled to a 99th percentile of about 1.",
    ]
    return known


def _save(path: Path, model: Network, card: dict[str, Any]) -> None:
    # batch statistics do not fit half precision
    with writing(path):
        save_prior(path, model.eval(), card, half=not isinstance(model, ResidualUnet))


def _provenance(card: dict[str, Any]) -> dict[str, Any]:
    """Return data and licences of a start or teacher prior, which apply to the run as well."""
    kept = ("name", "sha256", "training_data", "licence", "start", "teacher")
    return {name: card[name] for name in kept if name in card}


def _last_record(log: Path, step: int) -> dict[str, float]:
    """Return the logged loss of the last interval up to a step."""
    if not log.is_file():
        return {}
    records = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    done = [record for record in records if record["step"] <= step]
    return {"final_loss": done[-1]["loss"]} if done else {}


def _of_subjects(data: list[dict[str, str]]) -> list[dict[str, str]]:
    """The entries that are scans of subjects: photographs have none."""
    return [entry for entry in data if set(entry["contrasts"].split(", ")) != {PHOTOGRAPH}]


def _subjects(data: list[dict[str, str]]) -> str:
    count = len({entry["subject"] for entry in _of_subjects(data)})
    return "1 subject" if count == 1 else f"{count} subjects"
