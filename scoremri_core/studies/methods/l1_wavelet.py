"""L1-wavelet, SigPy's, with one fixed weight.

Lustig, Donoho & Pauly, "Sparse MRI", MRM 58:1182-1195 (2007).
"""

from __future__ import annotations

from scoremri_core.mri.classical import l1_wavelet
from scoremri_core.score.score import Answer
from scoremri_core.studies.methods.problem import Problem

LAMBDA = 0.01  # the middle one of `scoremri evaluate`; nothing here sees the reference


def reconstruct(problem: Problem, weight: float = LAMBDA) -> Answer:
    """argmin |P F S x - y|^2 / 2 + lambda |W x|_1."""
    image = l1_wavelet(problem.kspace, problem.maps, weight)
    return Answer(image, note=f"lambda {weight:g}")
