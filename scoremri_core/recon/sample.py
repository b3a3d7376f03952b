"""Draw posterior samples of prepared slices, resample and fall back where they do not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremri_core.mri.noise import covariance as noise
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.recon.held_out import classical, residual_power, worse_than_classical
from scoremri_core.recon.prepare import Slice
from scoremri_core.recon.progress import LevelReporter
from scoremri_core.samplers.annealing import no_callback
from scoremri_core.samplers.noise_level import NoiseLevel
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.samplers.registry import SamplerChoice

logger = logging.getLogger(__name__)

# complex values in memory at once (images x coils x pixels)
BATCH_VALUES = {"cpu": 2**22, "cuda": 2**28}

OUTER = 0.4, 0.9  # of Nyquist: errors of the coil maps dominate below, vendor filters above
MAX_RESIDUAL_RATIO = 1.5  # residual of the samples' mean over that of the classical image
INCONSISTENT = 4.0  # noise variance of a line over that of its neighbours
HELD_OUT_SAMPLES = 4  # for the comparison with a classical image


def sample(
    slices: Sequence[Slice],
    drawing: SamplerChoice,
    denoiser: Any,
    samples: int,
    device: torch.device,
    reporter: LevelReporter,
) -> int:
    """Draw posterior samples of all slices without a `fallback`, in place.

    Slices whose residual exceeds the assumed noise are resampled with more noise. Slices whose
    samples still do not fit the data get a `fallback`.

    Parameters
    ----------
    slices : sequence of Slice
    drawing : SamplerChoice
        The sampler and its options.
    denoiser : Denoiser
    samples : int
        Samples per slice.
    device : torch.device
    reporter : LevelReporter

    Returns
    -------
    int
        Denoiser evaluations per sample.
    """
    active = [slice_ for slice_ in slices if slice_.fallback is None]

    def draw(some: list[Slice], count: int = samples, report: bool = True) -> int:
        sample_batch = partial(_sample, denoiser, drawing, reporter if report else None)
        return _draw(some, count, device, sample_batch, reporter)

    evaluations = draw(active)
    if drawing.sampler.estimates_noise:
        drawn = [s for s in active if s.fallback is None and np.isfinite(s.misfit)]
        draw([s for s in drawn if s.noise.update_from_samples(s.residual_covariance)])
        worse = [s for s in active if _residual_exceeds_classical(s)]
        for slice_ in worse:
            slice_.noise.inflate(slice_.trusted_misfit)
        draw(worse)
    for slice_ in active:
        if slice_.fallback is not None:
            continue
        if not np.isfinite(np.asarray(slice_.samples)).all():
            slice_.fallback = "the samples are not finite"
        elif _residual_exceeds_classical(slice_):
            slice_.fallback = "the residual of the samples exceeds that of a classical image"
    if drawing.sampler.estimates_noise:
        suspects = [s for s in active if s.fallback is None and _is_inconsistent(s)]
        few = partial(draw, count=min(samples, HELD_OUT_SAMPLES), report=False)
        for slice_ in worse_than_classical(suspects, few):
            slice_.fallback = "a classical image predicts held-out lines better than the samples"
    return evaluations


def _draw(
    slices: list[Slice],
    samples: int,
    device: torch.device,
    draw: Callable[[Sequence[Slice], SampleNoise], int],
    reporter: LevelReporter,
) -> int:
    """Sample slices in batches that fit the memory; return the evaluations per sample."""
    evaluations = 0
    batches: list[list[Slice]] = []
    # by the number of map sets and of measured rows, which the random numbers depend on
    kinds: dict[tuple[Any, ...], list[Slice]] = {}
    for slice_ in slices:
        if slice_.maps is not None:
            rows = int(slice_.kspace.mask.any(1).sum())
            kind = *slice_.maps.shape, rows, slice_.kspace.averages is not None
            kinds.setdefault(kind, []).append(slice_)
    for _, alike in sorted(kinds.items()):
        per_batch = max(1, BATCH_VALUES[device.type] // (samples * alike[0].kspace.values.size))
        batches += [alike[i : i + per_batch] for i in range(0, len(alike), per_batch)]
    while batches:
        batch = batches.pop(0)
        seeds = [s.seed for s in batch]
        # slices that share a seed share the random numbers
        random = SampleNoise(seeds[:1] if len(set(seeds)) == 1 else seeds, samples, device)
        try:
            evaluations = max(evaluations, draw(batch, random))
        except (MemoryError, RuntimeError) as error:
            if reporter.raised or not _out_of_memory(error):
                raise
            logger.warning("out of memory on %s with a batch of %d slices", device, len(batch))
            if len(batch) > 1:
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
            else:
                batch[0].fallback = f"out of memory on {device}"
    return evaluations


@torch.no_grad()
def _sample(
    prior: Any,
    drawing: SamplerChoice,
    reporter: LevelReporter | None,
    slices: Sequence[Slice],
    random: SampleNoise,
) -> int:
    """Sample slices of one shape as one batch; return the evaluations per sample."""

    def tensor(arrays: list[Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(random.device)

    # unit noise after whitening is 1 / scale in units of the prior
    maps = tensor([noise.whiten(s.maps, s.noise.whitening()) for s in slices])  # type: ignore[arg-type]
    data = tensor([s.noise.white(s.kspace.values) / np.float32(s.scale) for s in slices])
    mask = tensor([s.kspace.mask for s in slices])
    averages = [s.noise.averages for s in slices]
    weight = None if averages[0] is None else tensor(averages)
    operator = SenseOperator(maps, mask, weight)
    scales = tensor([np.float32(s.scale) for s in slices])
    on_level = no_callback if reporter is None else partial(_report, reporter, slices)
    images, evaluations = drawing.sampler.draw(
        operator, data, 1 / scales, prior, random, drawing.options, on_level
    )
    count = operator.mask.sum((1, 2, 3, 4)) * maps.shape[2] * 2
    reduced = operator.reduced(data)[:, None]
    power = operator.residual_power(reduced, images)
    level = NoiseLevel(operator, 1 / scales, reduced)
    level.update(power)
    trust = (1 / level.excess).mean(1)
    misfit, trusted = (
        each.sum((1, 2)) * scales**2 / count for each in (power.mean(1), power.mean(1) * trust)
    )
    trust = torch.fft.fftshift(trust, dim=(-2, -1)).expand(mask.shape)
    inconsistent = (mask & (trust < 1 / INCONSISTENT)).sum((1, 2)) / mask.sum((1, 2))
    residual = (operator.forward(images[:, :1])[:, 0] - data) * scales.view(-1, 1, 1, 1)
    y, x = (torch.linspace(-1, 1, n, device=random.device) for n in data.shape[-2:])
    radius = torch.hypot(y[:, None], x)
    outer = mask & (radius > OUTER[0]) & (radius < OUTER[1])
    for i, slice_ in enumerate(slices):
        white = (residual[i] * trust[i].sqrt())[:, outer[i]].cpu().numpy().astype(np.complex128)
        coils = np.linalg.inv(slice_.noise.whitening()) @ white
        slice_.residual_covariance = coils @ coils.conj().T / max(1, coils.shape[1])
        slice_.samples = (_combined(images[i]) * slice_.scale).cpu().numpy()
        slice_.mean = (images[i].mean(0) * slice_.scale).cpu().numpy()
        slice_.trust = trust[i].cpu().numpy()
        slice_.misfit, slice_.trusted_misfit = float(misfit[i]), float(trusted[i])
        slice_.inconsistent_lines = float(inconsistent[i])
    return evaluations


def _report(
    reporter: LevelReporter, slices: Sequence[Slice], level: int, levels: int, x: torch.Tensor
) -> None:
    """Report a noise level; x is (slice, sample, set, y, x), in units of the prior."""

    def images() -> NDArray[Any]:
        drawn = zip(_combined(x).cpu().numpy(), slices, strict=True)
        return np.stack(
            [
                slice_.full.image(slice_.box.image(each * np.float32(slice_.scale)))
                for each, slice_ in drawn
            ]
        )

    reporter.level([slice_.number for slice_ in slices], level, levels, images)


def _is_inconsistent(slice_: Slice) -> bool:
    """Whether some lines are inconsistent, or the residual exceeds the noise."""
    return slice_.inconsistent_lines > 0 or slice_.noise.is_inconsistent(slice_.misfit)


def _residual_exceeds_classical(slice_: Slice) -> bool:
    """Whether the residual of the samples' mean is larger than that of the classical image."""
    if slice_.fallback is not None or not slice_.noise.is_inconsistent(slice_.trusted_misfit):
        return False
    ours, theirs = (
        np.sum(residual_power(slice_, image) * np.asarray(slice_.trust))
        for image in (np.asarray(slice_.mean), classical(slice_))
    )
    return not ours < MAX_RESIDUAL_RATIO**2 * theirs


def _combined(images: torch.Tensor) -> torch.Tensor:
    """Combine the sets (..., set, y, x) by root sum of squares, with the phase of the first set."""
    if images.shape[-3] == 1:
        return images[..., 0, :, :]
    magnitude = images.abs().square().sum(-3).sqrt()
    return torch.polar(magnitude, images[..., 0, :, :].angle())


def _out_of_memory(error: Exception) -> bool:
    # torch raises a plain RuntimeError for a failed allocation on the CPU
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate" in str(error)
