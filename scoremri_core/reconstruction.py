"""The front door: k-space in, posterior samples, their mean and standard deviation out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from scoremri_core.assemble import assemble
from scoremri_core.prepare import prepare
from scoremri_core.priors import Denoiser
from scoremri_core.priors.model import ModelPrior
from scoremri_core.progress import Callback, Reporter
from scoremri_core.request import Request
from scoremri_core.result import Reconstruction
from scoremri_core.sample import Told, sample
from scoremri_core.samplers.registry import Options


def reconstruct(
    kspace: ArrayLike | Tensor,
    *,
    mask: ArrayLike | Tensor | None = None,
    averages: ArrayLike | Tensor | None = None,
    calibration: ArrayLike | Tensor | None = None,
    noise_covariance: ArrayLike | Tensor | None = None,
    prior: str | Denoiser = "default",
    sampler: str | Options = "posterior",
    samples: int = 8,
    steps: int | None = None,
    maps: int | str | ArrayLike | Tensor = "auto",
    scale: float | None = None,
    seed: int | Sequence[int] = 0,
    device: str = "auto",
    callback: Callback | None = None,
    **sampler_options: Any,
) -> Reconstruction:
    """Draw posterior samples of one slice or of a stack of slices.

    Parameters
    ----------
    kspace : complex (coil, y, x) or (slice, coil, y, x), centred, zero where not sampled (a
        sample is measured where any coil is not zero).  A torch tensor gives tensors.
    mask : which samples were measured, (y,) for lines, (y, x) or (slice, y, x); None tells it from
        the k-space, where a sample that is zero in all coils counts as not measured.
    averages : how many readouts each sample is the mean of, like `mask`: a sample averaged n times
        has the noise of `noise_covariance` over n, and counts n times.  None takes all for 1.
    calibration : k-space of the calibration lines, like `kspace`; None finds them in `kspace`.
    noise_covariance : (coil, coil), E[n n^H] of the complex noise; None estimates it from the
        edges of k-space.  It is raised where the data show more (`scoremri_core.noise_model`).
    prior : name of a shipped prior ("default" is the one that goes with the sampler), path of a
        .safetensors file, or any object with `denoise(x, sigma)`.
    sampler : one of `scoremri_core.samplers.SAMPLERS`, or an object of its options, such as
        `PosteriorOptions(steps=9)`; "none" gives the classical image alone.
    samples : number of posterior samples.
    steps : noise levels of the sampler; None takes the sampler's default.
    maps : sets of coil maps to estimate (1, 2, or "auto": two in a slice in which parts of the
        object fold onto each other), or the maps themselves: (coil, y, x) or (set, coil, y, x),
        either with a leading slice axis where `kspace` has one.
    scale : image value that the prior sees as 1; None takes the 99th percentile of the
        coil-combined zero-filled image, slice by slice.
    seed : sample i depends on the seed and on i alone; a sequence holds one for each slice.
    device : "auto", "cpu", "cuda" or "cuda:N".
    callback : called with a `Progress` after each noise level; what it raises ends the call.
    sampler_options : fields of the sampler's options by name.

    Returns
    -------
    Reconstruction.  A slice that cannot be sampled (values that are not finite, no calibration
    lines, out of memory, samples that do not fit the data, lines that contradict each other) holds
    the best classical image; `info.fallback` says why.

    Raises
    ------
    InputError : arguments of the wrong shape, name, kind or range; a prior that returns another
        shape, or real values.

    Notes
    -----
    Where the samples span less than the matrix (an interpolated image), the image is sampled on
    the grid that they span and interpolated: nothing is invented where nothing was measured.
    """
    start = time.perf_counter()
    request = Request.of(
        kspace,
        mask,
        averages,
        calibration,
        noise_covariance,
        sampler,
        samples,
        steps,
        maps,
        scale,
        seed,
        device,
        sampler_options,
    )
    slices, box = prepare(request)
    denoiser, evaluations = request.drawing.prior(prior), 0
    if denoiser is not None:
        if isinstance(denoiser, ModelPrior):
            denoiser = denoiser.to(request.device)
        able = sum(own.fallback is None for own in slices)
        told = Told(Reporter(callback, able), box, request.unit)
        evaluations = sample(
            slices, request.drawing, denoiser, request.samples, request.device, told
        )
    result = assemble(request, slices, box, denoiser, evaluations, start)
    return result.as_tensors(kspace.device) if isinstance(kspace, Tensor) else result
