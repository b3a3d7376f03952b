"""Checkpoints of public code bases, read with torch's weights-only unpickler."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoremri_core.errors import InputError
from scoremri_core.priors.edm import EdmUnet
from scoremri_core.priors.ncsnv2 import NCSNv2

# names of the two copies of the weights in checkpoints
MODEL = ("model_state", "model_state_dict", "state_dict", "model", "score")
AVERAGE = ("ema_state", "ema_state_dict", "ema", "shadow", "model_ema")
EDM_NAME = re.compile(r"model\.enc\.(\d+)x\1_conv\.weight")
FIRST = re.compile(rf"begin_conv\.weight$|{EDM_NAME.pattern}$")  # parameter of a network


@dataclass(frozen=True)
class Checkpoint:
    """A network and the origin of its weights.

    Attributes
    ----------
    model : NCSNv2 or EdmUnet
        In evaluation mode, float32.
    weights : str
        "moving average" or "last step".
    epoch, step : int or None
        Of the training, if stored.
    """

    model: NCSNv2 | EdmUnet
    weights: str
    epoch: int | None = None
    step: int | None = None


def read_foreign(path: Path, rescaled: bool = False, sigma_data: float = 0.5) -> Checkpoint:
    """Read a checkpoint of another program, of a kind detected from its content.

    - NCSNv2: files of ncsnv2 (github.com/ermongroup/ncsnv2) and csgm-mri-langevin
      (github.com/utcsilab/csgm-mri-langevin): a list [model state, optimiser state, epoch, step,
      moving average], a mapping of these, or the model's state. The moving average is preferred;
      the noise levels are those of the buffer `sigmas`.
    - EDM: the state dictionary of an `EDMPrecond` around a `SongUNet` (github.com/NVlabs/edm) of
      the "DDPM++" kind without class labels, with or without its moving average. The public
      pickled networks contain code and are not read.

    Depth, width and channels follow from names and shapes.

    Parameters
    ----------
    path : Path
    rescaled : bool, optional
        Of an `NCSNv2`; not stored in the checkpoint.
    sigma_data : float, optional
        Of the preconditioning of EDM, which is not stored. Default: EDM's 0.5.

    Returns
    -------
    Checkpoint

    Raises
    ------
    InputError
        No such file; a file with more than tensors and plain values; names, shapes or noise levels
        of neither network; a weight that is not finite.
    """
    checkpoint = _read(path, rescaled, sigma_data)
    for name, value in checkpoint.model.state_dict().items():
        if not value.isfinite().all():
            raise InputError(f"{path}: {name!r} holds values that are not finite")
    return checkpoint


def _read(path: Path, rescaled: bool, sigma_data: float) -> Checkpoint:
    content = _load(path)
    state, average, *_ = _parts(content)
    if any(EDM_NAME.match(name) for name in _named(state) | _named(average)):
        return _edm(path, content, sigma_data)
    return _ncsnv2(path, content, rescaled)


def _ncsnv2(path: Path, content: Any, rescaled: bool) -> Checkpoint:
    state, average, epoch, step = _parts(content)
    averaged = _named(average)
    model = _built(path, _named(state) | averaged, rescaled)
    return Checkpoint(
        model.eval().requires_grad_(False),
        "moving average" if averaged else "last step",
        epoch if isinstance(epoch, int) else None,
        step if isinstance(step, int) else None,
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # raised by the readers of archives and pickles for files that are not checkpoints
    except (
        pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError,
        AttributeError, TypeError, AssertionError,
    ) as error:  # fmt: skip
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is not None:
            raise InputError(
                f"{path}: contains {foreign[1]}, but only tensors and plain values are unpickled: "
                "expected a checkpoint of state dictionaries"
            ) from error
        raise InputError(f"{path}: expected a checkpoint written by torch.save") from error


def _parts(content: Any) -> tuple[Any, Any, Any, Any]:
    """Return model state, moving average, epoch and step; None for a missing one."""
    if isinstance(content, (list, tuple)):
        state, _, epoch, step, average = (*content, *[None] * 5)[:5]
    elif isinstance(content, Mapping):
        state = next((content[name] for name in MODEL if name in content), content)
        average = next((content[name] for name in AVERAGE if name in content), None)
        epoch, step = content.get("epoch"), content.get("step")
    else:
        return None, None, None, None
    if isinstance(average, Mapping) and isinstance(average.get("shadow"), Mapping):
        average = average["shadow"]
    return state, average, epoch, step


def _named(state: Any) -> dict[str, Tensor]:
    """Return tensors by name without the prefix of a wrapper.

    DataParallel adds `module.`, torch.compile `_orig_mod.`, Lightning `model.`.
    """
    if not isinstance(state, Mapping):
        return {}
    tensors = {
        name: value.float()
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    found = next(filter(None, map(FIRST.search, tensors)), None)
    prefix = found.string[: found.start()] if found else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def _built(path: Path, weights: dict[str, Tensor], rescaled: bool) -> NCSNv2:
    first, sigmas = weights.get("begin_conv.weight"), weights.get("sigmas")
    if first is None or first.ndim != 4:
        raise InputError(f"{path}: expected the weights of an NCSNv2, with begin_conv.weight")
    if sigmas is None:
        raise InputError(f"{path}: the noise levels, the model's buffer 'sigmas', are missing")
    if sigmas.ndim != 1 or not (sigmas.isfinite() & (sigmas > 0)).all() or not len(sigmas):
        raise InputError(f"{path}: 'sigmas': expected a list of positive noise levels")
    if "res31.0.conv1.weight" in weights:
        variant = "deepest"
    else:
        variant = "deeper" if "res5.0.conv1.weight" in weights else "plain"
    with torch.device("meta"):  # names and shapes only: values are loaded
        model = NCSNv2(variant, first.shape[0], first.shape[1], len(sigmas), rescaled)
    _load_into(model, weights, path, f"an NCSNv2 ({variant}) of width {first.shape[0]}")
    return model


def _edm(path: Path, content: Any, sigma_data: float) -> Checkpoint:
    state, average, *_ = _parts(content)
    averaged = _named(average)
    # augmentation is for training only; the filters are 2 x 2 means
    weights = {
        name: value
        for name, value in (_named(state) | averaged).items()
        if name != "model.map_augment.weight" and not name.endswith(".resample_filter")
    }
    first = next((name for name in weights if EDM_NAME.match(name)), "")
    if not first or weights[first].ndim != 4:
        raise InputError(f"{path}: expected the weights of a U-Net of EDM, with model.enc.NxN_conv")
    resolution = int(EDM_NAME.match(first)[1])  # type: ignore[index]
    width, channels = weights[first].shape[:2]
    multipliers, blocks, attention = [], 0, []
    for scale in range(12):
        size = resolution >> scale
        prefix = f"model.enc.{size}x{size}_block"
        number = sum(name.startswith(prefix) and name.endswith(".conv1.weight") for name in weights)
        if not number:
            break
        blocks = number
        multipliers.append(weights[f"{prefix}{number - 1}.conv1.weight"].shape[0] // width)
        if f"{prefix}0.qkv.weight" in weights:
            attention.append(size)
    with torch.device("meta"):  # names and shapes only: values are loaded
        model = EdmUnet(resolution, width, multipliers, blocks, attention, channels, sigma_data)
    _load_into(model, weights, path, "a DDPM++ U-Net of EDM without class labels")
    model = model.eval().requires_grad_(False)
    return Checkpoint(model, "moving average" if averaged else "last step")


def _load_into(model: nn.Module, weights: dict[str, Tensor], path: Path, kind: str) -> None:
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise InputError(f"{path}: {name!r} of {kind} is missing")
        if name not in expected:
            raise InputError(f"{path}: {name!r} is no parameter of {kind}")
        if weights[name].shape != expected[name].shape:
            raise InputError(
                f"{path}: {name!r} has shape {tuple(weights[name].shape)}: expected "
                f"{tuple(expected[name].shape)} in {kind}"
            )
    model.load_state_dict(weights, assign=True)
