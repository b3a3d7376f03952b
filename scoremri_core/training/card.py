"""A prior on disk with its card: what it was trained on and how, how good it is, its limits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoremri_core.errors import InputError
from scoremri_core.paths import replacing, writing
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.storage import ARCHITECTURES, load_prior, save_prior
from scoremri_core.training import measure
from scoremri_core.training.loop import LOG, read_checkpoint
from scoremri_core.training.manifest import Source, describe_data, select_split
from scoremri_core.training.settings import Network, Settings
from scoremri_core.training.slices import load_slices
from scoremri_core.training.width import calibrate_variance

logger = logging.getLogger(__name__)

PHOTOGRAPH = "photograph"  # contrast of photographs in a manifest


def as_prior(model: nn.Module, card: dict[str, Any] | None = None) -> ModelPrior:
    """The prior around a network."""
    known = next(a for a in ARCHITECTURES.values() if type(model) is a.network)
    return known.prior(model, card or {"name": "in training"})


def write_prior(checkpoint: Path, path: Path, sources: Sequence[Source]) -> None:
    """Write the moving average of a run, finished or not, as a prior.

    Parameters
    ----------
    checkpoint : checkpoint.pt of the run, its log.jsonl beside it.
    path : of the .safetensors file; the card comes beside it.
    sources : the data of the run.

    Raises
    ------
    InputError : not a checkpoint; no training data.
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
            card[name] = _provenance(load_prior(prior).card)
    _save(path, model, card)


def measure_prior(
    path: Path,
    sources: Sequence[Source],
    cache: Path | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
    width: bool = True,
) -> None:
    """Measure a prior on validation and test data and write that into its card.

    The factors on the error variance are chosen on the validation data; the test data, where there
    are any, are only measured.

    Parameters
    ----------
    path : of the .safetensors file, which is left as it is.
    sources : data with a validation split.
    cache : see `load_slices`.
    device : where to compute.
    progress : see `calibrate_variance`.
    width : choose the factors; only the sampler "posterior" uses them.

    Raises
    ------
    InputError : not a prior; no validation data, or a file that cannot be read.
    """
    prior = load_prior(path).to(torch.device(device))
    # which the prior looks into while it is measured
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
    """What a user of the prior should know, in a few sentences."""
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
        "The phase of images that were stored as magnitudes is simulated.",
        "It sees 2D slices one by one, scaled so that the 99th percentile is about 1.",
    ]
    return known


def _save(path: Path, model: Network, card: dict[str, Any]) -> None:
    # batch statistics do not fit half precision
    with writing(path):
        save_prior(path, model.eval(), card, half=not isinstance(model, ResidualUnet))


def _provenance(card: dict[str, Any]) -> dict[str, Any]:
    """Of a prior that a run began with or learned from: its data and licences are the run's."""
    kept = ("name", "sha256", "training_data", "licence", "start", "teacher")
    return {name: card[name] for name in kept if name in card}


def _last_record(log: Path, step: int) -> dict[str, float]:
    """Loss of the last interval up to a step, as logged."""
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
