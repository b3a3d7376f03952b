"""Arguments of the front door, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError


def find_device(name: str) -> torch.device:
    """The torch device of "auto", "cpu", "cuda" or "cuda:N"; InputError for any other."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def per_slice(
    name: str, value: ArrayLike | None, kspace: NDArray[np.complex64]
) -> list[NDArray[np.complex64] | None]:
    """One entry per slice of an argument that is shaped like `kspace`, or None."""
    slices = 1 if kspace.ndim == 3 else len(kspace)
    if value is None:
        return [None] * slices
    array = np.asarray(value, dtype=np.complex64)
    if array.shape[-3:] != kspace.shape[-3:] or array.ndim not in (3, kspace.ndim):
        raise InputError(f"{name} has shape {array.shape}: expected that of kspace, {kspace.shape}")
    if array.ndim == 4 and len(array) != slices:
        raise InputError(f"{name} has {len(array)} slices: expected {slices}")
    return list(array) if array.ndim == 4 else [array] * slices


def given_maps(value: ArrayLike, kspace: NDArray[np.complex64]) -> list[NDArray[np.complex64]]:
    """Maps (set, coil, y, x) of every slice."""
    array = np.asarray(value, dtype=np.complex64)
    slices = 1 if kspace.ndim == 3 else len(kspace)
    expected = f"expected (coil, y, x) or (set, coil, y, x), {kspace.shape[-3:]} per set"
    if array.ndim not in (3, 4, 5) or array.shape[-3:] != kspace.shape[-3:]:
        raise InputError(f"maps has shape {array.shape}: {expected}")
    if not np.isfinite(array).all():
        raise InputError("maps holds values that are not finite")
    if array.ndim == 5 or (array.ndim == 4 and kspace.ndim == 4 and len(array) == slices):
        if len(array) != slices:
            raise InputError(f"maps has {len(array)} slices: expected {slices}")
        return [m if m.ndim == 4 else m[None] for m in array]
    return [array if array.ndim == 4 else array[None]] * slices


def per_slice_seeds(seed: int | Sequence[int], slices: int) -> list[int]:
    """The seed of each slice."""
    seeds = list(seed) if isinstance(seed, Iterable) else [seed] * slices
    if len(seeds) != slices:
        raise InputError(f"seed holds {len(seeds)} numbers: expected one, or {slices}")
    return [int(own) for own in seeds]  # NumPy's integers are welcome
