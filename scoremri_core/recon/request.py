"""What a reconstruction is asked for, checked at the door."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.kspace import as_complex
from scoremri_core.samplers.registry import SamplerChoice, find_sampler

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]

UNIT_TOLERANCE = 0.1  # on the norm of maps


@dataclass(frozen=True)
class Request:
    """How the slices of a stack are reconstructed.

    Attributes
    ----------
    drawing : SamplerChoice
        The sampler and its options.
    samples : int
        Posterior samples; 0 with the sampler "none".
    seeds : list of int
        One for each slice.
    device : torch.device
        Where to sample.
    maps : list of complex64 (set, coil, y, x), or 1, 2 or "auto"
        Given maps of each slice, or the number of sets to estimate.
    scale : float or None
        Image value that the prior sees as 1.
    references : tuple of str
        Images without a prior to return as well, of `scoremri_core.recon.result.REFERENCES`.
    virtual_coil : complex64 (coil,), or None
        Combination of coils whose phase the images get; None leaves them the phase of the maps.
    keep_maps : bool
        Whether the result holds the coil maps.
    """

    drawing: SamplerChoice
    samples: int
    seeds: list[int]
    device: torch.device
    maps: list[Array] | int | str = "auto"
    scale: float | None = None
    references: tuple[str, ...] = ()
    virtual_coil: Array | None = None
    keep_maps: bool = True

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        *,
        sampler: Any = "posterior",
        samples: int = 8,
        steps: int | None = None,
        maps: Any = "auto",
        scale: float | None = None,
        seed: int | Sequence[int] = 0,
        device: str = "auto",
        sampler_options: Mapping[str, Any] | None = None,
    ) -> Request:
        """Request of the arguments of `reconstruct`.

        Parameters
        ----------
        shape : tuple of int
            Of the k-space: (coil, y, x) or (slice, coil, y, x).

        Raises
        ------
        InputError
            Names the argument that is wrong.
        """
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise InputError(f"scale is {scale}: expected a number above 0")
        drawing = find_sampler(sampler, steps, sampler_options or {})
        if samples < 1:
            raise InputError(f"samples is {samples}: expected at least 1")
        estimated = isinstance(maps, (int, str))
        if estimated and maps not in (1, 2, "auto"):
            raise InputError(f"maps is {maps!r}: expected 1 or 2 sets, auto, or an array")
        return cls(
            drawing=drawing,
            samples=samples if drawing.draws_samples else 0,
            seeds=_seeds(seed, 1 if len(shape) == 3 else shape[0]),
            device=find_device(device),
            maps=maps if estimated else _maps(maps, shape),
            scale=scale,
        )

    def of_slices(self, where: slice) -> Request:
        """The same for some of the slices."""
        maps = self.maps[where] if isinstance(self.maps, list) else self.maps
        return replace(self, seeds=self.seeds[where], maps=maps)


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


def _maps(value: Any, shape: tuple[int, ...]) -> list[Array]:
    """Maps (set, coil, y, x) of every slice."""
    slices = 1 if len(shape) == 3 else shape[0]
    given = np.shape(value)
    if len(given) not in (3, 4, 5) or given[-3:] != shape[-3:]:
        raise InputError(
            f"maps has shape {given}: expected (coil, y, x) or (set, coil, y, x), "
            f"{shape[-3:]} per set"
        )
    array = as_complex("maps", value).astype(np.complex64)
    if not np.isfinite(array).all():
        raise InputError("maps holds values that are not finite")
    if array.ndim == 5 or (array.ndim == 4 and len(shape) == 4 and len(array) == slices):
        if len(array) != slices:
            raise InputError(f"maps has {len(array)} slices: expected {slices}")
        found = [one if one.ndim == 4 else one[None] for one in array]
    else:
        found = [array if array.ndim == 4 else array[None]] * slices
    norm = np.linalg.norm(found[0][0], axis=0)
    usual = float(np.median(norm[norm > 0])) if norm.any() else 0.0
    if abs(usual - 1) > UNIT_TOLERANCE:
        logger.warning(
            "maps have a norm of %.3g over the coils, not 1: so do the image's units", usual
        )
    return found


def _seeds(seed: int | Sequence[int], slices: int) -> list[int]:
    """The seed of each slice."""
    seeds = list(seed) if isinstance(seed, Iterable) else [seed] * slices
    if len(seeds) != slices:
        raise InputError(f"seed holds {len(seeds)} numbers: expected one, or {slices}")
    return [int(each) for each in seeds]  # NumPy's integers are welcome
