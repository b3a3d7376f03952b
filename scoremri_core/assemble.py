"""From sampled slices to a reconstruction on the image's grid, in the caller's units."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from scoremri_core.mri.acquired import Box, unacquired
from scoremri_core.mri.classical import best_classical
from scoremri_core.prepare import Slice
from scoremri_core.request import Request
from scoremri_core.result import Info, Reconstruction, standard_deviation


def assemble(
    request: Request, slices: list[Slice], box: Box, denoiser: Any, evaluations: int, start: float
) -> Reconstruction:
    """Samples, or the best classical image where there are none, with what was run.

    Parameters
    ----------
    denoiser : the prior, None where no samples were wanted.
    evaluations : of it, per sample.
    start : of the reconstruction, on `time.perf_counter`.
    """
    ny, nx = box.full
    sets = max((len(own.maps) for own in slices if own.maps is not None), default=1)
    means, samples, maps = [], [], []
    for i, (own, full) in enumerate(zip(slices, request.kspace, strict=True)):
        known = np.full((sets, *full.shape), np.nan, np.complex64)
        if own.maps is not None:
            known[:] = 0
            known[: len(own.maps)] = box.full_maps(own.maps)
        if own.fallback is None and own.samples is not None:
            samples.append(box.image(own.samples))
            means.append(samples[-1].mean(0))
        else:
            samples.append(np.full((request.samples, ny, nx), np.nan, np.complex64))
            averages = None if request.averages is None else request.averages[i]
            fitting = None if own.maps is None else known
            means.append(best_classical(full, fitting, own.noise.before, averages))
        maps.append(known)
    unit = np.float32(request.unit)
    drawn = np.stack(samples).astype(np.complex64) * unit
    info = _info(request, slices, box, denoiser, evaluations)
    return Reconstruction(
        mean=np.stack(means).astype(np.complex64) * unit,
        std=standard_deviation(drawn, info.effective_samples),
        samples=drawn,
        maps=np.stack(maps),
        info=replace(info, seconds=time.perf_counter() - start),
    )


def _info(request: Request, slices: list[Slice], box: Box, denoiser: Any, evaluations: int) -> Info:
    drawing, unit = request.drawing, request.unit
    variance_scale, inflation = drawing.factors(denoiser)
    return Info(
        sampler=drawing.name,
        samples=request.samples,
        prior="none" if denoiser is None else getattr(denoiser, "name", type(denoiser).__name__),
        seed=request.seeds[0],
        steps=drawing.options.steps if drawing.wanted else 0,
        evaluations=evaluations,
        effective_samples=drawing.effective_samples(request.samples),
        variance_scale=variance_scale,
        inflation=inflation,
        unacquired=unacquired((request.kspace != 0).any((0, 1))),
        sigma_n=tuple(own.noise.sigma_used(own.misfit) * unit for own in slices),
        sigma_thermal=tuple(own.noise.sigma_thermal * unit for own in slices),
        misfit=tuple(own.noise.thermal_misfit(own.misfit) for own in slices),
        inconsistent_lines=tuple(own.inconsistent for own in slices),
        scale=tuple(own.scale / box.factor * unit for own in slices),
        fallback=tuple(own.fallback for own in slices),
    )
