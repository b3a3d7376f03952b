"""Assemble sampled slices into a reconstruction on the image matrix, in the caller's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.kspace import KSpace
from scoremri_core.mri.classical import best_classical, zero_filled
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.sampling import unsampled_fraction
from scoremri_core.recon.prepare import Slice
from scoremri_core.recon.request import Request
from scoremri_core.recon.result import PER_SLICE, Info, Reconstruction, standard_deviation

Array = NDArray[Any]


@dataclass
class Finished:
    """Images of a slice on the image matrix in the caller's units, and its fields of `Info`.

    Attributes
    ----------
    mean : complex64 array, (y, x)
    samples : complex64 array, (sample, y, x)
        NaN if the slice could not be sampled.
    maps : complex64 array, (set, coil, y, x), or None
    references : dict of complex64 array, (y, x)
    unsampled_fraction, sigma_n, sigma_thermal, misfit, inconsistent_lines, scale : float
    fallback : str or None
    """

    mean: Array
    samples: Array
    maps: Array | None
    references: dict[str, Array]
    unsampled_fraction: float
    sigma_n: float
    sigma_thermal: float
    misfit: float
    inconsistent_lines: float
    scale: float
    fallback: str | None


def finish(slice_: Slice, request: Request) -> Finished:
    """Convert a slice's samples and compute their mean, or the classical image if it has none.

    Parameters
    ----------
    slice_ : Slice
    request : Request

    Returns
    -------
    Finished
    """
    full, noise, box = slice_.full, slice_.noise, slice_.box
    maps = None if slice_.maps is None else box.full_maps(slice_.maps)
    sampled = slice_.fallback is None and slice_.samples is not None

    def classical() -> Array:
        return best_classical(full.values, maps, noise.initial_covariance, full.averages, full.mask)

    if sampled:
        samples = box.image(np.asarray(slice_.samples))
        mean = samples.mean(0)
    else:
        samples = np.full((request.samples, *full.mask.shape), np.nan, np.complex64)
        mean = classical()
    references = {}
    for name in request.references:
        if name == "zero_filled":
            references[name] = _zero_filled(full, maps)
        else:
            references[name] = classical() if sampled else mean
    phase = _phase(maps, request.virtual_coil)
    unit = full.unit
    return Finished(
        mean=full.image(mean * phase),
        samples=full.image(samples * phase),
        maps=maps if request.keep_maps else None,
        references={name: full.image(image * phase) for name, image in references.items()},
        unsampled_fraction=unsampled_fraction(full.mask),
        sigma_n=noise.sigma_used(slice_.misfit) * unit,
        sigma_thermal=noise.sigma_thermal * unit,
        misfit=noise.thermal_misfit(slice_.misfit),
        inconsistent_lines=slice_.inconsistent_lines,
        scale=slice_.scale / box.factor * unit,
        fallback=slice_.fallback,
    )


def assemble(
    request: Request, parts: Sequence[Finished], coils: int, denoiser: Any, evaluations: int
) -> Reconstruction:
    """Stack slices into a reconstruction.

    Parameters
    ----------
    request : Request
    parts : sequence of Finished
    coils : int
    denoiser : Denoiser or None
        The prior; None if no samples were requested.
    evaluations : int
        Denoiser evaluations per sample.

    Returns
    -------
    Reconstruction
    """
    mean, samples = (
        np.stack([getattr(part, name) for part in parts]) for name in ("mean", "samples")
    )
    info = _info(request, parts, denoiser, evaluations)
    return Reconstruction(
        mean=mean,
        std=standard_deviation(samples, info.effective_samples),
        samples=samples,
        maps=_stacked(parts, coils, request.keep_maps),
        info=info,
        references={
            name: np.stack([part.references[name] for part in parts]) for name in request.references
        },
    )


def _zero_filled(full: KSpace, maps: Array | None) -> Array:
    """Zero-filled image, coil-combined with the maps or by root sum of squares without maps."""
    if maps is None:
        return np.asarray(np.linalg.norm(to_image(full.values), axis=0), np.complex64)
    sets = np.stack([zero_filled(full.values, one) for one in maps])
    if len(sets) == 1:
        return sets[0]
    return np.asarray(np.linalg.norm(sets, axis=0) * np.exp(1j * np.angle(sets[0])), np.complex64)


def _phase(maps: Array | None, virtual_coil: Array | None) -> Any:
    """Phase factor (y, x) that refers an image to the phase of the virtual coil."""
    if maps is None or virtual_coil is None:
        return np.complex64(1)
    seen = np.tensordot(virtual_coil.conj(), maps[0], axes=1)
    return np.exp(1j * np.angle(seen)).astype(np.complex64)


def _stacked(parts: Sequence[Finished], coils: int, keep: bool) -> Array:
    """Stack maps (slice, set, coil, y, x); NaN in a slice without maps, zero in missing sets."""
    sets = max((len(part.maps) for part in parts if part.maps is not None), default=int(keep))
    shape = len(parts), sets, coils, *parts[0].mean.shape
    stacked = np.full(shape, np.nan, np.complex64)
    for target, part in zip(stacked, parts, strict=True):
        if part.maps is not None:
            target[:] = 0
            target[: len(part.maps)] = part.maps
    return stacked


def _info(request: Request, parts: Sequence[Finished], denoiser: Any, evaluations: int) -> Info:
    drawing = request.drawing
    per_slice: dict[str, Any] = {
        name: tuple(getattr(part, name) for part in parts) for name in PER_SLICE
    }
    variance_scale, inflation = drawing.factors(denoiser)

    return Info(
        sampler=drawing.name,
        samples=request.samples,
        prior="none" if denoiser is None else getattr(denoiser, "name", type(denoiser).__name__),
        seed=request.seeds[0],
        steps=drawing.options.steps if drawing.draws_samples else 0,
        evaluations=evaluations,
        effective_samples=drawing.effective_samples(request.samples),
        variance_scale=variance_scale,
        inflation=inflation,
        prior_measured=getattr(denoiser, "is_measured", None),
        **per_slice,
    )
