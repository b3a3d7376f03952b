"""Parameters of a reconstruction, checked."""

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

NORM_TOLERANCE = 0.1  # of coil maps


@dataclass(frozen=True)
class Request:
    """Parameters of the reconstruction of a stack of slices.

    Attributes
    ----------
    drawing : SamplerChoice
        The sampler and its options.
    samples : int
        Number of posterior samples; 0 for the sampler "none".
    seeds : list of int
        One per slice.
    device : torch.device
    maps : list of complex64 array, (set, coil, y, x), or 1, 2 or "auto"
        Coil maps of each slice, or the number of sets to estimate.
    scale : float or None
        Image value that the prior sees as 1.
    references : tuple of str
        Additional images without a prior, from `scoremri_core.recon.result.REFERENCES`.
    virtual_coil : complex64 array, (coil,), or None
        Coil combination that is the phase reference of the images; None for that of the maps.
    keep_maps : bool
        Whether to return the coil maps.
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
        """Check the arguments of `reconstruct`.

        Parameters
        ----------
        shape : tuple of int
            Shape of the k-space, (coil, y, x) or (slice, coil, y, x).
        sampler, samples, steps, maps, scale, seed, device
            See `reconstruct`.
        sampler_options : mapping, optional
            Fields of the sampler's options.

        Returns
        -------
        Request

        Raises
        ------
        InputError
            An argument has the wrong shape, type, name or range.
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
        """Select the request of some slices.

        Parameters
        ----------
        where : slice

        Returns
        -------
        Request
        """
        maps = self.maps[where] if isinstance(self.maps, list) else self.maps
        return replace(self, seeds=self.seeds[where], maps=maps)


def find_device(name: str) -> torch.device:
    """Convert the name of a device.

    Parameters
    ----------
    name : str
        "auto", "cpu", "cuda" or "cuda:N".

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        Unknown name, or no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def describe_device(name: str) -> str:
    """Describe a device.

    Parameters
    ----------
    name : str
        As for `find_device`.

    Returns
    -------
    str
        The device, with the name of a GPU.

    Raises
    ------
    InputError
        As `find_device`.
    """
    device = find_device(name)
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{gpu}"


def _maps(value: Any, shape: tuple[int, ...]) -> list[Array]:
    """Check coil maps and return those of each slice, (set, coil, y, x)."""
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
        maps = [m if m.ndim == 4 else m[None] for m in array]
    else:
        maps = [array if array.ndim == 4 else array[None]] * slices
    norm = np.linalg.norm(maps[0][0], axis=0)
    median = float(np.median(norm[norm > 0])) if norm.any() else 0.0
    if abs(median - 1) > NORM_TOLERANCE:
        logger.warning("maps have a norm of %.3g over the coils, which scales the image", median)
    return maps


def _seeds(seed: int | Sequence[int], slices: int) -> list[int]:
    """Return the seed of each slice."""
    seeds = list(seed) if isinstance(seed, Iterable) else [seed] * slices
    if len(seeds) != slices:
        raise InputError(f"seed holds {len(seeds)} numbers: expected 1 or {slices}")
    return [int(s) for s in seeds]  # from NumPy integers
