"""From sampled slices to a reconstruction on the matrix of the image, in the caller's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.kspace import KSpace
from scoremri_core.mri.classical import best_classical, zero_filled
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.sampling import unacquired
from scoremri_core.recon.prepare import Slice
from scoremri_core.recon.request import Request
from scoremri_core.recon.result import Info, Reconstruction, standard_deviation

Array = NDArray[Any]


@dataclass
class Finished:
    """Images of a slice on its own matrix, in the caller's units; and what `Info` says of it."""

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


def finish(own: Slice, request: Request) -> Finished:
    """Posterior samples and their mean; of a slice that has none, the best classical image."""
    full, noise, box = own.full, own.noise, own.box
    maps = None if own.maps is None else box.full_maps(own.maps)
    sampled = own.fallback is None and own.samples is not None

    def classical() -> Array:
        return best_classical(full.values, maps, noise.initial_covariance, full.averages, full.mask)

    if sampled:
        samples = box.image(np.asarray(own.samples))
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
        unsampled_fraction=unacquired(full.mask),
        sigma_n=noise.sigma_used(own.misfit) * unit,
        sigma_thermal=noise.sigma_thermal * unit,
        misfit=noise.thermal_misfit(own.misfit),
        inconsistent_lines=own.inconsistent,
        scale=own.scale / box.factor * unit,
        fallback=own.fallback,
    )


def assemble(
    request: Request, parts: Sequence[Finished], coils: int, denoiser: Any, evaluations: int
) -> Reconstruction:
    """A stack of slices.

    Parameters
    ----------
    coils : int
    denoiser : object or None
        The prior; None if no samples were asked for.
    evaluations : int
        Of it, per sample.
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
    """Combined with the coil maps; without any, the root sum of squares."""
    if maps is None:
        return np.asarray(np.linalg.norm(to_image(full.values), axis=0), np.complex64)
    sets = np.stack([zero_filled(full.values, one) for one in maps])
    if len(sets) == 1:
        return sets[0]
    return np.asarray(np.linalg.norm(sets, axis=0) * np.exp(1j * np.angle(sets[0])), np.complex64)


def _phase(maps: Array | None, virtual_coil: Array | None) -> Any:
    """Factor that gives an image the phase that a virtual coil sees."""
    if maps is None or virtual_coil is None:
        return np.complex64(1)
    seen = np.tensordot(virtual_coil.conj(), maps[0], axes=1)
    return np.exp(1j * np.angle(seen)).astype(np.complex64)


def _stacked(parts: Sequence[Finished], coils: int, kept: bool) -> Array:
    """Maps (slice, set, coil, y, x); NaN in a slice without, zero in a set that a slice lacks."""
    sets = max((len(part.maps) for part in parts if part.maps is not None), default=int(kept))
    shape = len(parts), sets, coils, *parts[0].mean.shape
    stacked = np.full(shape, np.nan, np.complex64)
    for target, part in zip(stacked, parts, strict=True):
        if part.maps is not None:
            target[:] = 0
            target[: len(part.maps)] = part.maps
    return stacked


def _info(request: Request, parts: Sequence[Finished], denoiser: Any, evaluations: int) -> Info:
    drawing = request.drawing
    variance_scale, inflation = drawing.factors(denoiser)

    def of_each(name: str) -> tuple[Any, ...]:
        return tuple(getattr(part, name) for part in parts)

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
        unsampled_fraction=of_each("unsampled_fraction"),
        sigma_n=of_each("sigma_n"),
        sigma_thermal=of_each("sigma_thermal"),
        misfit=of_each("misfit"),
        inconsistent_lines=of_each("inconsistent_lines"),
        scale=of_each("scale"),
        fallback=of_each("fallback"),
    )
