"""Methods by name: each maps a `Problem` to an `Answer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from scoremri_core import reconstruct
from scoremri_core.mri import classical
from scoremri_core.score.score import Answer
from scoremri_core.studies.methods import (
    CG_SENSE,
    CONV_DECODER,
    FIXED_LAMBDA,
    L1_WAVELET,
    LAMBDAS,
    POSTERIOR_MEAN,
    ZERO_FILLED,
    conv_decoder,
)
from scoremri_core.studies.methods.networks import Trained
from scoremri_core.studies.methods.problem import Problem

Method = Callable[[Problem], Answer]


def zero_filled(problem: Problem) -> Answer:
    """Combine the coil images of the zero-filled k-space."""
    return Answer(problem.zero_filled)


def cg_sense(problem: Problem) -> Answer:
    """Reconstruct by SENSE with conjugate gradients."""
    return Answer(classical.cg_sense(problem.kspace, problem.maps, problem.noise_covariance))


def l1_wavelet(problem: Problem, weight: float = FIXED_LAMBDA) -> Answer:
    """Solve argmin |P F S x - y|^2 / 2 + lambda |W x|_1.

    References
    ----------
    .. [1] Lustig M, Donoho D, Pauly JM. Sparse MRI. Magn Reson Med 58:1182-1195 (2007).
    """
    image = classical.l1_wavelet(problem.kspace, problem.maps, weight)
    return Answer(image, note=lambda_note(weight))


def lambda_note(weight: float) -> str:
    """Format the weight of L1-wavelet for tables."""
    return f"lambda {weight:g}"


def posterior_mean(
    problem: Problem, prior: Any, samples: int, device: str, **options: Any
) -> Answer:
    """Draw posterior samples on the coil maps of the problem; see `scoremri_core.reconstruct`."""
    result = reconstruct(
        problem.kspace,
        prior=prior,
        samples=samples,
        maps=problem.maps,
        seed=problem.seed,
        device=device,
        **options,
    )
    reason = result.info.reason
    return Answer(
        result.mean[0],
        None if reason else result.samples[0],
        result.info.effective_samples,
        result.info.evaluations,
        reason or "",
    )


# candidates of each method, the best of which counts
CLASSICAL: Mapping[str, Sequence[Method]] = {
    ZERO_FILLED: [zero_filled],
    CG_SENSE: [cg_sense],
    L1_WAVELET: [partial(l1_wavelet, weight=weight) for weight in LAMBDAS],
}


def comparison_methods(
    networks: Sequence[Trained],
    prior: Any,
    samples: int,
    decoder_iterations: int,
    device: torch.device,
) -> dict[str, Method]:
    """Return the methods that `scoremri compare` puts side by side.

    Parameters
    ----------
    networks : sequence of Trained
    prior : Denoiser
        Of the posterior mean.
    samples : int
        Posterior samples.
    decoder_iterations : int
        Of ConvDecoder; 0 leaves it out.
    device : torch.device

    Returns
    -------
    dict of str to Method
        By the name in the tables, the posterior mean last.
    """
    methods: dict[str, Method] = {L1_WAVELET: l1_wavelet}
    if decoder_iterations:
        methods[CONV_DECODER] = partial(
            conv_decoder.reconstruct, device=device, iterations=decoder_iterations
        )
    methods |= {net.title: partial(net.reconstruct, device=device) for net in networks}
    methods[POSTERIOR_MEAN] = partial(
        posterior_mean, prior=prior, samples=samples, device=str(device)
    )
    return methods
