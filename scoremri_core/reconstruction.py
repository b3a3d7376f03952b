"""The front door: k-space in, posterior samples, their mean and standard deviation out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scoremri_core import arguments, noise
from scoremri_core.classical import best_classical, zero_filled
from scoremri_core.coil_maps import estimate_coil_maps
from scoremri_core.errors import InputError
from scoremri_core.priors import Denoiser, load_prior
from scoremri_core.priors.model import ModelPrior
from scoremri_core.result import Info, Reconstruction, standard_deviation
from scoremri_core.samplers import SAMPLERS
from scoremri_core.samplers.noise import SampleNoise, effective_samples
from scoremri_core.samplers.registry import REGISTRY, Sampler
from scoremri_core.sense import SenseOperator

logger = logging.getLogger(__name__)

# complex values in flight at once (images x coils x pixels), which bounds the memory
BATCH_VALUES = {"cpu": 2**22, "cuda": 2**28}


@dataclass
class _Frame:
    """One slice on its way to the sampler."""

    kspace: NDArray[np.complex64]
    covariance: NDArray[np.complex128] | None = None
    maps: NDArray[np.complex64] | None = None
    scale: float = float("nan")
    fallback: str | None = None

    @property
    def sigma_n(self) -> float:
        return float("nan") if self.covariance is None else noise.noise_sigma(self.covariance)

    def find_scale(self, given: float | None) -> None:
        """The image value that the prior sees as 1, of a slice that can be sampled."""
        if self.fallback is not None or self.maps is None:
            return
        if given is None:
            first = zero_filled(self.kspace, self.maps[0])
            given = float(np.percentile(np.abs(first), 99))
        self.scale = given
        if not given > 0:
            self.give_up("the image is zero")

    def give_up(self, reason: str) -> None:
        """Mark as a slice that cannot be sampled."""
        self.fallback = reason
        logger.warning("classical image instead of samples: %s", reason)


def reconstruct(
    kspace: ArrayLike,
    *,
    calibration: ArrayLike | None = None,
    noise_covariance: ArrayLike | None = None,
    prior: str | Denoiser = "default",
    sampler: str = "posterior",
    samples: int = 8,
    steps: int | None = None,
    maps: int | ArrayLike = 1,
    scale: float | None = None,
    seed: int | Sequence[int] = 0,
    device: str = "auto",
    **sampler_options: Any,
) -> Reconstruction:
    """Draw posterior samples of one slice or of a stack of slices.

    Parameters
    ----------
    kspace : complex (coil, y, x) or (slice, coil, y, x), centred, zero where not sampled (a
        sample is measured where any coil is not zero).
    calibration : k-space of the calibration lines, like `kspace`; None finds them in `kspace`.
    noise_covariance : (coil, coil), E[n n^H] of the complex noise; None estimates it from the
        edges of k-space.
    prior : name of a shipped prior, path of a .safetensors file, or any object with
        `denoise(x, sigma)`.
    sampler : one of `scoremri_core.samplers.SAMPLERS`; "none" gives the classical image alone.
    samples : number of posterior samples.
    steps : noise levels of the sampler; None takes the sampler's default.
    maps : sets of coil maps to estimate (1 or 2), or the maps themselves: (coil, y, x) or
        (set, coil, y, x), either with a leading slice axis where `kspace` has one.
    scale : image value that the prior sees as 1; None takes the 99th percentile of the
        coil-combined zero-filled image, slice by slice.
    seed : sample i depends on the seed and on i alone; a sequence holds one for each slice.
    device : "auto", "cpu", "cuda" or "cuda:N".
    sampler_options : fields of the sampler's options, such as `PosteriorOptions`.

    Returns
    -------
    Reconstruction.  A slice that cannot be sampled (values that are not finite, no calibration
    lines, out of memory) holds the best classical image; `info.fallback` says why.

    Raises
    ------
    InputError : arguments of the wrong shape, name or range.
    """
    start = time.perf_counter()
    ksp = np.asarray(kspace, dtype=np.complex64)
    if ksp.ndim not in (3, 4) or 0 in ksp.shape:
        raise InputError(
            f"kspace has shape {ksp.shape}: expected (coil, y, x) or (slice, coil, y, x)"
        )
    stack = ksp if ksp.ndim == 4 else ksp[None]
    if sampler not in SAMPLERS:
        raise InputError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")
    if samples < 1:
        raise InputError(f"samples is {samples}: expected at least 1")
    # without samples the options are checked all the same
    drawing = REGISTRY["posterior" if sampler == "none" else sampler]
    options = drawing.configured(steps, sampler_options)
    seeds = arguments.per_slice_seeds(seed, len(stack))
    where = arguments.find_device(device)
    calibrations = arguments.per_slice("calibration", calibration, ksp)
    given = None if isinstance(maps, int) else arguments.given_maps(maps, ksp)
    if given is None and maps not in (1, 2):
        raise InputError(f"maps is {maps!r}: expected 1 or 2 sets, or an array")
    covariance = None
    if noise_covariance is not None:
        covariance = np.asarray(noise_covariance, dtype=np.complex128)
        if covariance.shape != (stack.shape[1],) * 2:
            raise InputError(
                f"noise_covariance has shape {covariance.shape}: expected (coil, coil), "
                f"{(stack.shape[1],) * 2}"
            )
        noise.whitening_matrix(covariance)  # refuses what is no covariance

    frames = [_measured(frame, covariance) for frame in stack]
    if given is None:
        _estimate_maps(frames, calibrations, int(maps), str(where))  # type: ignore[arg-type]
    else:
        for frame, known in zip(frames, given, strict=True):
            frame.maps = known
    for frame in frames:
        frame.find_scale(scale)
    sampled = [
        (frame, own)
        for frame, own in zip(frames, seeds, strict=True)
        if frame.fallback is None and sampler != "none"
    ]
    denoiser: Denoiser | None = None
    if sampler != "none":
        denoiser = load_prior(prior) if isinstance(prior, str) else prior
        if isinstance(denoiser, ModelPrior):
            denoiser = denoiser.to(where)

    drawn: list[NDArray[np.complex64]] = []
    evaluations = 0
    per_batch = max(1, BATCH_VALUES[where.type] // (samples * stack[0].size))
    batches = [sampled[i : i + per_batch] for i in range(0, len(sampled), per_batch)]
    while batches:
        batch = batches.pop(0)
        some, own = zip(*batch, strict=True)
        # one stream serves all slices that share a seed
        random = SampleNoise(own[:1] if len(set(own)) == 1 else own, samples, where)
        try:
            result, evaluations = _sample(some, denoiser, drawing, options, random)
            drawn.extend(result)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            logger.warning("%d slices at once: out of memory on %s", len(batch), where)
            if len(batch) > 1:
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
            else:
                some[0].fallback = f"out of memory on {where}"

    count = samples if sampler != "none" else 0
    factors = options.factors(denoiser) if sampler == "posterior" else (None, None)
    return _assembled(
        frames,
        iter(drawn),
        count,
        Info(
            sampler=sampler,
            samples=count,
            prior=getattr(denoiser, "name", type(denoiser).__name__) if denoiser else "none",
            seed=seeds[0],
            steps=options.steps if count else 0,
            evaluations=evaluations,
            sigma_n=_per_slice([frame.sigma_n for frame in frames]),
            scale=_per_slice([frame.scale for frame in frames]),
            fallback=_per_slice([frame.fallback for frame in frames]),
            seconds=time.perf_counter() - start,
            effective_samples=effective_samples(count, getattr(options, "balanced", False)),
            variance_scale=factors[0],
            inflation=factors[1],
        ),
    )


def _measured(kspace: NDArray[np.complex64], covariance: NDArray[np.complex128] | None) -> _Frame:
    """A slice with its noise, or the reason why it cannot be sampled."""
    frame = _Frame(kspace, covariance)
    try:
        if not np.isfinite(kspace).all():
            raise InputError("k-space holds values that are not finite")
        if covariance is None:
            frame.covariance = noise.covariance_from_edges(kspace)
    except InputError as error:
        frame.give_up(str(error))
    return frame


def _estimate_maps(
    frames: Sequence[_Frame],
    calibrations: Sequence[NDArray[np.complex64] | None],
    sets: int,
    device: str,
) -> None:
    """Coil maps of all slices in one call, or one by one where not all of them have any."""
    pairs = [pair for pair in zip(frames, calibrations, strict=True) if pair[0].fallback is None]
    if not pairs:
        return
    sources = np.stack([frame.kspace if own is None else own for frame, own in pairs])
    covariances = np.stack([np.asarray(frame.covariance) for frame, _ in pairs])
    try:
        maps = estimate_coil_maps(sources, sets, covariances, device=device)
    except InputError as error:
        if len(pairs) == 1:
            pairs[0][0].give_up(str(error))
            return
        for frame, own in pairs:
            _estimate_maps([frame], [own], sets, device)
    else:
        for (frame, _), found in zip(pairs, maps, strict=True):
            frame.maps = found


@torch.no_grad()
def _sample(
    frames: Sequence[_Frame],
    prior: Any,
    sampler: Sampler,
    options: Any,
    random: SampleNoise,
) -> tuple[NDArray[np.complex64], int]:
    """Sample slices of one shape as one batch: (slice, sample, y, x) in units of the k-space."""

    def tensor(arrays: list[Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(random.device)

    # with unit noise after whitening, the noise in units of the prior is 1 / scale
    matrices = [noise.whitening_matrix(f.covariance) for f in frames]  # type: ignore[arg-type]
    maps = tensor([noise.whiten(f.maps, w) for f, w in zip(frames, matrices, strict=True)])  # type: ignore[arg-type]
    data = tensor(
        [
            noise.whiten(f.kspace, w) / np.float32(f.scale)
            for f, w in zip(frames, matrices, strict=True)
        ]
    )
    mask = tensor([(f.kspace != 0).any(0) for f in frames])
    scales = tensor([np.float32(f.scale) for f in frames])
    images, evaluations = sampler.draw(
        SenseOperator(maps, mask), data, 1 / scales, prior, random, options
    )
    images = _combined(images) * scales.view(-1, 1, 1, 1)
    return images.cpu().numpy(), evaluations


def _combined(images: torch.Tensor) -> torch.Tensor:
    """One image of the sets (..., set, y, x): root sum of squares with the first set's phase."""
    if images.shape[-3] == 1:
        return images[..., 0, :, :]
    magnitude = images.abs().square().sum(-3).sqrt()
    return torch.polar(magnitude, images[..., 0, :, :].angle())


def _assembled(frames: list[_Frame], drawn: Any, count: int, info: Info) -> Reconstruction:
    ny, nx = frames[0].kspace.shape[-2:]
    sets = next((f.maps.shape[0] for f in frames if f.maps is not None), 1)
    means, samples, maps = [], [], []
    for frame in frames:
        if frame.fallback is None and count:
            samples.append(next(drawn))
            means.append(samples[-1].mean(0))
        else:
            samples.append(np.full((count, ny, nx), np.nan, np.complex64))
            means.append(best_classical(frame.kspace, frame.maps, frame.covariance))
        absent = np.full((sets, *frame.kspace.shape), np.nan, np.complex64)
        maps.append(absent if frame.maps is None else frame.maps)
    stacked = np.stack(samples)
    return Reconstruction(
        np.stack(means).astype(np.complex64),
        standard_deviation(stacked, info.effective_samples),
        stacked,
        np.stack(maps),
        info,
    )


def _per_slice(values: list[Any]) -> Any:
    if len(values) == 1 or all(value is None for value in values):
        return values[0]
    return tuple(values)


def _out_of_memory(error: Exception) -> bool:
    # torch has no class of its own for a failed allocation on the CPU
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate" in str(error)
