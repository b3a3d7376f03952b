"""What is asked of `reconstruct`, checked at the door and brought to one form."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.noise import whitening_matrix
from scoremri_core.samplers.registry import Drawing, find_sampler

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]

MOST_COILS = 128  # of today's arrays: more are another axis
TINY = np.float32(1e-30)  # what a sample that was measured as zero holds, since zero says "none"
UNIT_TOLERANCE = 0.1  # on the norm of maps


@dataclass(frozen=True)
class Request:
    """A stack of slices and what is to be done with it.

    K-space is held in units of its own, in which its largest value is between 1 and 2, so that no
    square leaves the range of float32; `unit` is what 1 there is to the caller.

    Attributes
    ----------
    kspace : (slice, coil, y, x), zero where not measured.
    averages : (slice, y, x), how often each sample was averaged over how often those averaged least
        were, 0 where not measured; or None where all are alike.
    calibrations : for each slice (coil, y, x), or None where the k-space holds its own.
    noise_covariance : (coil, coil), of the samples averaged least, or None.
    maps : for each slice (set, coil, y, x), or None where they are to be estimated.
    sets : number of sets to estimate, or "auto".
    scale : image value that the prior sees as 1, or None.
    drawing : the sampler and its options; with the sampler "none" those of the default one.
    samples : to draw; 0 with the sampler "none".
    seeds : of each slice.
    device : where to sample.
    unit : value of 1 to the caller, a power of two.
    """

    kspace: Array
    averages: NDArray[np.float32] | None
    calibrations: list[Array | None]
    noise_covariance: NDArray[np.complex128] | None
    maps: list[Array] | None
    sets: int | str
    scale: float | None
    drawing: Drawing
    samples: int
    seeds: list[int]
    device: torch.device
    unit: float

    @classmethod
    def of(
        cls,
        kspace: Any,
        mask: Any,
        averages: Any,
        calibration: Any,
        noise_covariance: Any,
        sampler: Any,
        samples: int,
        steps: int | None,
        maps: Any,
        scale: float | None,
        seed: int | Sequence[int],
        device: str,
        sampler_options: Mapping[str, Any],
    ) -> Request:
        """Of the arguments of `reconstruct`; InputError names the one that cannot be."""
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise InputError(f"scale is {scale}: expected a number above 0")
        shape = np.shape(kspace)
        if len(shape) not in (3, 4) or 0 in shape:
            raise InputError(
                f"kspace has shape {shape}: expected (coil, y, x) or (slice, coil, y, x)"
            )
        given = as_complex("kspace", kspace)
        _coils_first(given.shape)
        if (given.real >= 0).all() and not given.imag.any() and given.real.any():
            logger.warning("kspace has no phase: is it a magnitude?")
        drawing = find_sampler(sampler, steps, sampler_options)
        if samples < 1:
            raise InputError(f"samples is {samples}: expected at least 1")
        unit = unit_of(given)
        stack = scaled(given, unit).reshape(-1, *given.shape[-3:])
        if mask is not None:
            stack = _masked(stack, mask)
        covariance = _covariance(noise_covariance, stack.shape[1], unit)
        counted = None if averages is None else _averages(averages, stack)
        counted, covariance = of_the_least(counted, covariance)
        estimated = isinstance(maps, (int, str))
        if estimated and maps not in (1, 2, "auto"):
            raise InputError(f"maps is {maps!r}: expected 1 or 2 sets, auto, or an array")
        return cls(
            kspace=stack,
            averages=counted,
            calibrations=_calibrations(calibration, given.shape, unit),
            noise_covariance=covariance,
            maps=None if estimated else _maps(maps, given.shape),
            sets=maps if estimated else 1,
            scale=None if scale is None else scale / unit,
            drawing=drawing,
            samples=samples if drawing.wanted else 0,
            seeds=_seeds(seed, len(stack)),
            device=find_device(device),
            unit=unit,
        )


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


def _array(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def as_complex(name: str, value: Any) -> NDArray[np.complexfloating[Any, Any]]:
    """An array, or a torch tensor as one; InputError where it is not complex."""
    array = _array(value)
    if array.dtype.kind != "c":
        raise InputError(f"{name} is {array.dtype}: expected complex values")
    return array


def _coils_first(shape: tuple[int, ...]) -> None:
    """Refuse, or tell, k-space whose coils seem to be the last axis."""
    coils, x = shape[-3], shape[-1]
    if coils > MOST_COILS or coils > 4 * x:
        raise InputError(
            f"kspace has shape {shape}: expected (coil, y, x) or (slice, coil, y, x), with at most "
            f"{MOST_COILS} coils; is the coil the last axis?"
        )
    if coils > x:
        logger.warning(
            "kspace has %d coils of %d samples a line: is the coil the last axis?", coils, x
        )


def unit_of(kspace: NDArray[Any]) -> float:
    """Power of two at or below the largest finite component; 1 where there is none."""
    parts = np.abs(
        kspace.view(kspace.real.dtype)
        if kspace.flags.c_contiguous
        else np.stack([kspace.real, kspace.imag])
    )
    largest = float(np.max(parts, initial=0.0, where=np.isfinite(parts)))
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


def scaled(array: NDArray[Any], unit: float) -> Array:
    """The array over a power of two."""
    # in two steps, since 1 / unit itself may be out of the range of float32
    root = 2.0 ** np.floor(np.log2(unit) / 2)
    kind = array.real.dtype.type
    return np.asarray(array / kind(root) / kind(unit / root), np.complex64)


def _masked(stack: Array, mask: Any) -> Array:
    """K-space that is zero where `mask` is false, and where it is true is not."""
    measured = _array(mask)
    if measured.dtype.kind not in "bui":
        raise InputError(f"mask is {measured.dtype}: expected true or false values")
    measured = _of_samples("mask", measured.astype(bool), stack)[:, None]
    zero = measured & (stack == 0).all(axis=1, keepdims=True)
    return np.asarray(np.where(measured, np.where(zero, TINY, stack), 0), np.complex64)


def _averages(value: Any, stack: Array) -> NDArray[np.float32]:
    """How often each sample (slice, y, x) was averaged, 0 where it was not measured."""
    averages = _array(value)
    if averages.dtype.kind not in "uif":
        raise InputError(f"averages is {averages.dtype}: expected numbers")
    averages = _of_samples("averages", averages, stack)
    measured = (stack != 0).any(axis=1)
    if not (np.isfinite(averages[measured]).all() and (averages[measured] > 0).all()):
        raise InputError("averages: expected a number above 0 for each measured sample")
    return np.where(measured, averages, 0).astype(np.float32)


def of_the_least(
    averages: NDArray[np.float32] | None, covariance: NDArray[np.complex128] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.complex128] | None]:
    """Averages over the fewest, None where all are alike, and the noise covariance of these."""
    if averages is None or not averages.any():
        return None, covariance
    fewest = averages[averages > 0].min()
    covariance = None if covariance is None else covariance / float(fewest)
    return averages / fewest if (averages > fewest).any() else None, covariance


def _of_samples(name: str, value: NDArray[Any], stack: Array) -> NDArray[Any]:
    """What is said of each line or sample, for each sample (slice, y, x)."""
    slices, _, ny, nx = stack.shape
    if value.shape == (ny,):
        value = value[:, None]
    elif value.shape not in ((ny, nx), (slices, ny, nx)):
        raise InputError(
            f"{name} has shape {value.shape}: expected (y,), (y, x) or (slice, y, x), "
            f"{(slices, ny, nx)}"
        )
    return np.broadcast_to(value, (slices, ny, nx))


def _calibrations(value: Any, shape: tuple[int, ...], unit: float) -> list[Array | None]:
    """One entry per slice."""
    slices = 1 if len(shape) == 3 else shape[0]
    if value is None:
        return [None] * slices
    array = _array(value)
    if array.shape[-3:] != shape[-3:] or array.ndim not in (3, len(shape)):
        raise InputError(f"calibration has shape {array.shape}: expected that of kspace, {shape}")
    if array.ndim == 4 and len(array) != slices:
        raise InputError(f"calibration has {len(array)} slices: expected {slices}")
    array = scaled(as_complex("calibration", array), unit)
    return list(array) if array.ndim == 4 else [array] * slices


def _covariance(value: Any, coils: int, unit: float) -> NDArray[np.complex128] | None:
    if value is None:
        return None
    covariance = _array(value).astype(np.complex128)
    if covariance.shape != (coils, coils):
        raise InputError(
            f"noise_covariance has shape {covariance.shape}: expected (coil, coil), "
            f"{(coils, coils)}"
        )
    covariance /= unit**2
    whitening_matrix(covariance)  # refuses what is no covariance
    return covariance


def _maps(value: ArrayLike, shape: tuple[int, ...]) -> list[Array]:
    """Maps (set, coil, y, x) of every slice."""
    array = _array(value)
    slices = 1 if len(shape) == 3 else shape[0]
    if array.ndim not in (3, 4, 5) or array.shape[-3:] != shape[-3:]:
        raise InputError(
            f"maps has shape {array.shape}: expected (coil, y, x) or (set, coil, y, x), "
            f"{shape[-3:]} per set"
        )
    array = as_complex("maps", array).astype(np.complex64)
    if not np.isfinite(array).all():
        raise InputError("maps holds values that are not finite")
    if array.ndim == 5 or (array.ndim == 4 and len(shape) == 4 and len(array) == slices):
        if len(array) != slices:
            raise InputError(f"maps has {len(array)} slices: expected {slices}")
        found = [own if own.ndim == 4 else own[None] for own in array]
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
    return [int(own) for own in seeds]  # NumPy's integers are welcome
