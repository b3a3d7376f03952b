"""Ours: posterior samples and their mean."""

from __future__ import annotations

from typing import Any

from scoremri_core import reconstruct as _reconstruct
from scoremri_core.score.score import Answer
from scoremri_core.studies.methods.problem import Problem


def reconstruct(problem: Problem, prior: Any, samples: int, device: str, **options: Any) -> Answer:
    """The posterior mean on the coil maps that all methods are given; see `reconstruct`."""
    result = _reconstruct(
        problem.kspace,
        prior=prior,
        samples=samples,
        maps=problem.maps,
        seed=problem.seed,
        device=device,
        **options,
    )
    fallen = result.info.reason
    return Answer(
        result.mean[0],
        None if fallen else result.samples[0],
        result.info.effective_samples,
        result.info.evaluations,
        fallen or "",
    )
