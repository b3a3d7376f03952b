"""A slice of a reconstruction as a report shows it."""

from __future__ import annotations

import numpy as np

from scoremri_core.recon.result import Reconstruction
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import Shown
from scoremri_core.reports.geometry import Geometry


def shown(
    result: Reconstruction,
    index: int = 0,
    *,
    name: str = "Image",
    geometry: Geometry | None = None,
    acceleration: float = float("nan"),
) -> Shown:
    """One slice, with what the reconstruction says of it.

    Parameters
    ----------
    index : of the slice, or of the partition of a volume.
    name : what it is called.
    geometry : where it lies; None where that is not known, and pixels count as 1 mm.
    acceleration : samples of the whole matrix over those measured.
    """
    info = result.info
    fallback = info.fallback[index] if index < len(info.fallback) else info.reason
    sampled = info.samples > 0 and not fallback
    ny, nx = result.mean.shape[-2:]
    return Shown(
        name=name,
        mean=np.abs(result.mean[index]),
        std=result.magnitude_std[index] if sampled and info.samples > 1 else None,
        samples=tuple(np.abs(result.samples[index])) if sampled else (),
        geometry=Geometry((float(nx), float(ny), 1.0)) if geometry is None else geometry,
        facts=Facts(
            sampler=info.sampler,
            samples=info.samples,
            evaluations=info.evaluations,
            prior=info.prior,
            seed=str(info.seed),
            sigma_thermal=_own(info.sigma_thermal, index),
            sigma_n=_own(info.sigma_n, index),
            misfit=_own(info.misfit, index),
            inconsistent_lines=_own(info.inconsistent_lines, index),
            unacquired=_own(info.unsampled_fraction, index),
            acceleration=acceleration,
            fallback=fallback or "",
        ),
    )


def _own(values: tuple[float, ...], index: int) -> float:
    """That of a slice; the positions of a volume share one."""
    return float(values[index] if index < len(values) else np.mean(values or np.nan))
