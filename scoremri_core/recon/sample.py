"""From prepared slices to posterior samples, sampled again or given up where they do not fit."""

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
from scoremri_core.recon.held_out import classical, missed, worse_than_classical
from scoremri_core.recon.prepare import Slice
from scoremri_core.recon.progress import Reporter
from scoremri_core.samplers.annealing import no_callback
from scoremri_core.samplers.noise_level import NoiseLevel
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.samplers.registry import SamplerChoice

logger = logging.getLogger(__name__)

# complex values in flight at once (images x coils x pixels), which bounds the memory
BATCH_VALUES = {"cpu": 2**22, "cuda": 2**28}

OUTER = 0.4, 0.9  # of Nyquist's frequency: nearer to DC maps err, farther out vendors filter
MAX_RESIDUAL_RATIO = 1.5  # from the data than the classical image is: no posterior mean
INCONSISTENT = 4.0  # noise variance of a line over that of the lines beside it: it is told
HELD_OUT_SAMPLES = 4  # enough to see whether they know more than a classical image


def sample(
    slices: Sequence[Slice],
    drawing: SamplerChoice,
    denoiser: Any,
    samples: int,
    device: torch.device,
    reporter: Reporter,
) -> int:
    """Draw the samples of all slices that can be sampled; returns the evaluations per sample.

    Where they show that the noise was far too low, or miss the data, they are drawn again with
    more of it.  A slice whose samples do not fit the data all the same is given up.
    """
    able = [own for own in slices if own.fallback is None]

    def draw(some: list[Slice], count: int = samples, show: bool = True) -> int:
        once = partial(_sample, denoiser, drawing, reporter if show else None)
        return _draw(some, count, device, once, reporter)

    evaluations = draw(able)
    if drawing.sampler.estimates_noise:
        drawn = [own for own in able if own.fallback is None and np.isfinite(own.misfit)]
        draw([own for own in drawn if own.noise.update_from_samples(own.left)])
        worse = [own for own in able if _farther_than_classical(own)]
        for own in worse:
            own.noise.inflate(own.trusted_misfit)
        draw(worse)
    for own in able:
        if own.fallback is not None:
            continue
        if not np.isfinite(np.asarray(own.samples)).all():
            own.fall_back("the samples are not finite")
        elif _farther_than_classical(own):
            own.fall_back("the samples are farther from the data than a classical image is")
    if drawing.sampler.estimates_noise:
        doubted = [own for own in able if own.fallback is None and _is_doubted(own)]
        few = partial(draw, count=min(samples, HELD_OUT_SAMPLES), show=False)
        for own in worse_than_classical(doubted, few):
            own.fall_back("a classical image predicts held-out lines better than the samples")
    return evaluations


def _draw(
    slices: list[Slice],
    samples: int,
    device: torch.device,
    draw: Callable[[Sequence[Slice], SampleNoise], int],
    reporter: Reporter,
) -> int:
    """Sample slices in batches that fit the memory; returns the evaluations per sample."""
    evaluations = 0
    batches: list[list[Slice]] = []
    # alike in sets of maps and in measured rows, whose number the random numbers depend on
    kinds: dict[tuple[Any, ...], list[Slice]] = {}
    for own in slices:
        if own.maps is not None:
            rows = int(own.kspace.mask.any(1).sum())
            kind = *own.maps.shape, rows, own.kspace.averages is not None
            kinds.setdefault(kind, []).append(own)
    for _, alike in sorted(kinds.items()):
        per_batch = max(1, BATCH_VALUES[device.type] // (samples * alike[0].kspace.values.size))
        batches += [alike[i : i + per_batch] for i in range(0, len(alike), per_batch)]
    while batches:
        batch = batches.pop(0)
        seeds = [own.seed for own in batch]
        # one stream serves all slices that share a seed
        random = SampleNoise(seeds[:1] if len(set(seeds)) == 1 else seeds, samples, device)
        try:
            evaluations = max(evaluations, draw(batch, random))
        except (MemoryError, RuntimeError) as error:
            if reporter.raised or not _out_of_memory(error):
                raise
            logger.warning("%d slices at once: out of memory on %s", len(batch), device)
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
    reporter: Reporter | None,
    slices: Sequence[Slice],
    random: SampleNoise,
) -> int:
    """Sample slices of one shape as one batch; returns the evaluations per sample."""

    def tensor(arrays: list[Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(random.device)

    # with unit noise after whitening, the noise in units of the prior is 1 / scale
    maps = tensor([noise.whiten(own.maps, own.noise.whitening()) for own in slices])  # type: ignore[arg-type]
    data = tensor([own.noise.white(own.kspace.values) / np.float32(own.scale) for own in slices])
    mask = tensor([own.kspace.mask for own in slices])
    averages = [own.noise.averages for own in slices]
    weight = None if averages[0] is None else tensor(averages)
    operator = SenseOperator(maps, mask, weight)
    scales = tensor([np.float32(own.scale) for own in slices])
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
    rest = (operator.forward(images[:, :1])[:, 0] - data) * scales.view(-1, 1, 1, 1)
    y, x = (torch.linspace(-1, 1, n, device=random.device) for n in data.shape[-2:])
    radius = torch.hypot(y[:, None], x)
    outer = mask & (radius > OUTER[0]) & (radius < OUTER[1])
    for i, own in enumerate(slices):
        values = (rest[i] * trust[i].sqrt())[:, outer[i]].cpu().numpy().astype(np.complex128)
        back = np.linalg.inv(own.noise.whitening()) @ values
        own.left = back @ back.conj().T / max(1, values.shape[1])
        own.samples = (_combined(images[i]) * own.scale).cpu().numpy()
        own.mean = (images[i].mean(0) * own.scale).cpu().numpy()
        own.trust = trust[i].cpu().numpy()
        own.misfit, own.trusted_misfit = float(misfit[i]), float(trusted[i])
        own.inconsistent = float(inconsistent[i])
    return evaluations


def _report(
    reporter: Reporter, slices: Sequence[Slice], level: int, levels: int, x: torch.Tensor
) -> None:
    """Report a noise level; x is (slice, sample, set, y, x) in units of the prior."""

    def images() -> NDArray[Any]:
        drawn = zip(_combined(x).cpu().numpy(), slices, strict=True)
        return np.stack(
            [own.full.image(own.box.image(each * np.float32(own.scale))) for each, own in drawn]
        )

    reporter.level([own.number for own in slices], level, levels, images)


def _is_doubted(own: Slice) -> bool:
    """Whether its lines contradict each other, or its samples the noise."""
    return own.inconsistent > 0 or own.noise.is_inconsistent(own.misfit)


def _farther_than_classical(own: Slice) -> bool:
    """Whether the samples' mean misses the measured lines by more than a classical image does."""
    if own.fallback is not None or not own.noise.is_inconsistent(own.trusted_misfit):
        return False
    ours, theirs = (
        np.sum(missed(own, image) * np.asarray(own.trust))
        for image in (np.asarray(own.mean), classical(own))
    )
    return not ours < MAX_RESIDUAL_RATIO**2 * theirs


def _combined(images: torch.Tensor) -> torch.Tensor:
    """One image of the sets (..., set, y, x): root sum of squares with the first set's phase."""
    if images.shape[-3] == 1:
        return images[..., 0, :, :]
    magnitude = images.abs().square().sum(-3).sqrt()
    return torch.polar(magnitude, images[..., 0, :, :].angle())


def _out_of_memory(error: Exception) -> bool:
    # torch has no class of its own for a failed allocation on the CPU
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate" in str(error)
