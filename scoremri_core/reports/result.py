"""Report frames from reconstructions."""

from __future__ import annotations

import numpy as np

from scoremri_core.recon.result import Reconstruction
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import REFERENCES, ReportFrame
from scoremri_core.reports.geometry import Geometry


def shown(
    result: Reconstruction,
    index: int = 0,
    *,
    name: str = "Image",
    geometry: Geometry | None = None,
    acceleration: float = float("nan"),
) -> ReportFrame:
    """Make a report frame of a slice of a reconstruction.

    Parameters
    ----------
    result : Reconstruction
    index : int, optional
        Of the slice or partition.
    name : str, optional
        Title.
    geometry : Geometry, optional
        Default: unknown, pixels of 1 mm.
    acceleration : float, optional
        Samples of the full matrix over those acquired.

    Returns
    -------
    ReportFrame
    """
    info = result.info
    fallback = info.fallback[index] if index < len(info.fallback) else info.reason
    sampled = info.samples > 0 and not fallback
    ny, nx = result.mean.shape[-2:]
    return ReportFrame(
        name=name,
        mean=np.abs(result.mean[index]),
        std=result.magnitude_std[index] if sampled and info.samples > 1 else None,
        samples=tuple(np.abs(result.samples[index])) if sampled else (),
        reference_images={
            title: np.abs(result.references[name][index])
            for name, title in REFERENCES.items()
            if name in result.references
        },
        geometry=Geometry((float(nx), float(ny), 1.0)) if geometry is None else geometry,
        facts=Facts(
            sampler=info.sampler,
            samples=info.samples,
            evaluations=info.evaluations,
            prior=info.prior,
            seed=str(info.seed),
            sigma_thermal=_of_slice(info.sigma_thermal, index),
            sigma_n=_of_slice(info.sigma_n, index),
            misfit=_of_slice(info.misfit, index),
            inconsistent_lines=_of_slice(info.inconsistent_lines, index),
            unsampled_fraction=_of_slice(info.unsampled_fraction, index),
            acceleration=acceleration,
            fallback=fallback or "",
        ),
    )


def _of_slice(values: tuple[float, ...], index: int) -> float:
    """Return the value of a slice; the partitions of a volume share one."""
    return float(values[index] if index < len(values) else np.mean(values or np.nan))
