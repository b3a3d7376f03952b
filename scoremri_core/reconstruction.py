"""The front door: k-space in, posterior samples, their mean and standard deviation out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scoremri_core import arguments
from scoremri_core.errors import InputError
from scoremri_core.mri import misfit, noise
from scoremri_core.mri.acquired import sampled_box, unacquired
from scoremri_core.mri.classical import best_classical, cg_sense, zero_filled
from scoremri_core.mri.coil_maps import estimate_coil_maps
from scoremri_core.mri.fourier import resample, resize, to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors import Denoiser, load_prior
from scoremri_core.priors.model import ModelPrior
from scoremri_core.result import Info, Reconstruction, standard_deviation
from scoremri_core.samplers import SAMPLERS
from scoremri_core.samplers.noise import SampleNoise, effective_samples
from scoremri_core.samplers.registry import REGISTRY, Sampler

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]

# complex values in flight at once (images x coils x pixels), which bounds the memory
BATCH_VALUES = {"cpu": 2**22, "cuda": 2**28}

CONTRADICTION = 2.0  # between the noise given and the edges of k-space
OUTER = 0.4, 0.9  # of Nyquist's frequency: nearer to DC maps err, farther out vendors filter
DOUBTFUL = 3.0  # mean square of what samples leave of the data, over that of the noise
FARTHER = 1.5  # from the data than the classical image is: no posterior mean


@dataclass
class _Frame:
    """One slice on its way to the sampler, on the grid that its samples reach.

    Attributes
    ----------
    kspace : (coil, y, x).
    thermal : noise covariance as given, or as the quiet edges of k-space show it.
    covariance : the same, raised to what the data show that the maps do not explain.
    maps : (set, coil, y, x).
    scale : image value that the prior sees as 1.
    fallback : why it is not sampled, or None.
    samples : (sample, y, x), drawn.
    misfit : mean square of what the samples leave of the measured values, over that of the noise
        in `covariance`.
    distance : norm of what their mean leaves, in whitened values.
    before : `covariance` before any sampling, which classical images and comparisons go by.
    left : covariance of what a sample leaves, away from DC, where errors of the maps count less.
    """

    kspace: Array
    thermal: NDArray[np.complex128] | None = None
    covariance: NDArray[np.complex128] | None = None
    maps: Array | None = None
    scale: float = float("nan")
    fallback: str | None = None
    samples: Array | None = None
    misfit: float = float("nan")
    distance: float = float("nan")
    left: NDArray[np.complex128] | None = None
    before: NDArray[np.complex128] | None = None

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
            return
        self.covariance = misfit.with_least_level(self.covariance, given)  # type: ignore[arg-type]
        self.before = self.covariance

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
    maps: int | str | ArrayLike = "auto",
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
        edges of k-space.  It is raised where the data show more (`scoremri_core.mri.misfit`).
    prior : name of a shipped prior, path of a .safetensors file, or any object with
        `denoise(x, sigma)`.
    sampler : one of `scoremri_core.samplers.SAMPLERS`; "none" gives the classical image alone.
    samples : number of posterior samples.
    steps : noise levels of the sampler; None takes the sampler's default.
    maps : sets of coil maps to estimate (1, 2, or "auto": two in a slice in which parts of the
        object fold onto each other), or the maps themselves: (coil, y, x) or (set, coil, y, x),
        either with a leading slice axis where `kspace` has one.
    scale : image value that the prior sees as 1; None takes the 99th percentile of the
        coil-combined zero-filled image, slice by slice.
    seed : sample i depends on the seed and on i alone; a sequence holds one for each slice.
    device : "auto", "cpu", "cuda" or "cuda:N".
    sampler_options : fields of the sampler's options, such as `PosteriorOptions`.

    Returns
    -------
    Reconstruction.  A slice that cannot be sampled (values that are not finite, no calibration
    lines, out of memory, samples that do not fit the data) holds the best classical image;
    `info.fallback` says why.

    Raises
    ------
    InputError : arguments of the wrong shape, name or range; a prior that returns another shape,
        or real values.

    Notes
    -----
    Where the samples span less than the matrix (an interpolated image), the image is sampled on
    the grid that they span and interpolated: nothing is invented where nothing was measured.
    """
    start = time.perf_counter()
    if scale is not None and not scale > 0:
        raise InputError(f"scale is {scale}: expected a number above 0")
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
    given = None if isinstance(maps, (int, str)) else arguments.given_maps(maps, ksp)
    if given is None and maps not in (1, 2, "auto"):
        raise InputError(f"maps is {maps!r}: expected 1 or 2 sets, auto, or an array")
    covariance = None
    if noise_covariance is not None:
        covariance = np.asarray(noise_covariance, dtype=np.complex128)
        if covariance.shape != (stack.shape[1],) * 2:
            raise InputError(
                f"noise_covariance has shape {covariance.shape}: expected (coil, coil), "
                f"{(stack.shape[1],) * 2}"
            )
        noise.whitening_matrix(covariance)  # refuses what is no covariance

    mask = (stack != 0).any((0, 1))
    grid = _Grid(stack.shape[-2:], sampled_box(mask))
    # the positions of a volume, whose scale is given, have no edges of their own to compare with
    frames = [_measured(grid.kspace(frame), covariance, scale is None) for frame in stack]
    if given is None:
        blocks = [None if own is None else grid.kspace(own) for own in calibrations]
        _estimate_maps(frames, blocks, maps, str(where))  # type: ignore[arg-type]
    else:
        for frame, known in zip(frames, given, strict=True):
            frame.maps = grid.maps(known)
            _face_misfit([frame])
    for frame in frames:
        frame.find_scale(None if scale is None else scale * grid.factor)
    denoiser: Denoiser | None = None
    evaluations = 0
    if sampler != "none":
        denoiser = load_prior(prior) if isinstance(prior, str) else prior
        if isinstance(denoiser, ModelPrior):
            denoiser = denoiser.to(where)
        pairs = [pair for pair in zip(frames, seeds, strict=True) if pair[0].fallback is None]

        def draw(some: list[tuple[_Frame, int]]) -> int:
            return _draw(some, samples, where, partial(_sample, denoiser, drawing, options))

        evaluations = draw(pairs)
        if sampler == "posterior" and (told := [pair for pair in pairs if _learn_noise(pair[0])]):
            draw(told)
        worse = [pair for pair in pairs if _farther_than_classical(pair[0])]
        if sampler == "posterior" and worse:
            for frame, _ in worse:
                # a likelihood that its own samples contradict is not to be trusted as it is
                logger.warning("the samples miss the data: sampled again with more noise")
                more = float(np.clip(np.nan_to_num(frame.misfit, nan=100.0), 4, 100))
                frame.covariance = more * np.asarray(frame.covariance, np.complex128)
            draw(worse)
        for frame, _ in pairs:
            if frame.fallback is not None:
                continue
            if not np.isfinite(np.asarray(frame.samples)).all():
                frame.give_up("the samples are not finite")
            elif _farther_than_classical(frame):
                frame.give_up("the samples are farther from the data than a classical image is")

    count = samples if sampler != "none" else 0
    factors = options.factors(denoiser) if sampler == "posterior" else (None, None)
    return _assembled(
        frames,
        stack,
        grid,
        count,
        Info(
            sampler=sampler,
            samples=count,
            prior=getattr(denoiser, "name", type(denoiser).__name__) if denoiser else "none",
            seed=seeds[0],
            steps=options.steps if count else 0,
            evaluations=evaluations,
            sigma_n=_per_slice([_sigma_used(frame) for frame in frames]),
            scale=_per_slice([frame.scale / grid.factor for frame in frames]),
            fallback=_per_slice([frame.fallback for frame in frames]),
            seconds=time.perf_counter() - start,
            effective_samples=effective_samples(count, getattr(options, "balanced", False)),
            variance_scale=factors[0],
            inflation=factors[1],
            sigma_thermal=_per_slice([_sigma(frame.thermal) for frame in frames]),
            misfit=_per_slice([_misfit(frame) for frame in frames]),
            unacquired=unacquired(mask),
        ),
    )


class _Grid:
    """The grid of the image, and the one that the samples reach, on which it is sampled.

    Parameters
    ----------
    shape, box : (y, x) of both.
    """

    def __init__(self, shape: tuple[int, ...], box: tuple[int, int]) -> None:
        self.shape = shape
        self.box = box
        # value of a pixel on the box over that on the image's grid, of orthonormal transforms
        self.factor = float(np.sqrt(np.prod(shape) / np.prod(box)))

    @property
    def same(self) -> bool:
        return tuple(self.shape) == tuple(self.box)

    def kspace(self, full: Array) -> Array:
        """K-space (..., y, x) without what lies outside of the box."""
        return full if self.same else np.ascontiguousarray(resize(full, self.box))

    def maps(self, full: Array) -> Array:
        """Maps (set, coil, y, x) on the box."""
        return full if self.same else _unit(resample(full, self.box), full)

    def back(self, small: Array) -> Array:
        """Images (..., y, x) on the image's grid."""
        return small if self.same else resample(small, self.shape) / np.float32(self.factor)

    def maps_back(self, small: Array) -> Array:
        """Maps (set, coil, y, x) on the image's grid."""
        return small if self.same else _unit(resample(small, self.shape), small)


def _unit(maps: Array, like: Array) -> Array:
    """Maps whose largest norm in each set is that of `like`, after an interpolation."""
    norm = np.linalg.norm(maps, axis=1, keepdims=True)
    if np.allclose(np.linalg.norm(like, axis=1), 1, atol=1e-3):
        return np.asarray(maps / np.maximum(norm, 1e-6), np.complex64)
    return np.asarray(maps, np.complex64)


def _measured(kspace: Array, covariance: NDArray[np.complex128] | None, compare: bool) -> _Frame:
    """A slice with its noise, or the reason why it cannot be sampled."""
    frame = _Frame(kspace, covariance, covariance)
    try:
        if not np.isfinite(kspace).all():
            raise InputError("k-space holds values that are not finite")
        edges = covariance
        if covariance is None or compare:
            edges = noise.covariance_from_edges(kspace)
        if covariance is None:
            frame.thermal = frame.covariance = edges
        elif compare and not 1 / CONTRADICTION < _sigma(edges) / _sigma(covariance) < CONTRADICTION:
            logger.warning(
                "the noise given has sd %.4g, the edges of k-space show %.4g: one of them is "
                "wrong, or the background is masked",
                _sigma(covariance),
                _sigma(edges),
            )
    except InputError as error:
        frame.give_up(str(error))
    return frame


def _estimate_maps(
    frames: Sequence[_Frame],
    calibrations: Sequence[Array | None],
    sets: int | str,
    device: str,
) -> None:
    """Coil maps of all slices in one call, or one by one where not all of them have any."""
    pairs = [pair for pair in zip(frames, calibrations, strict=True) if pair[0].fallback is None]
    if not pairs:
        return
    sources = np.stack([frame.kspace if own is None else own for frame, own in pairs])

    def estimate() -> None:
        covariances = np.stack([np.asarray(frame.covariance) for frame, _ in pairs])
        maps = estimate_coil_maps(sources, sets, covariances, device=device)
        for (frame, _), found in zip(pairs, maps, strict=True):
            # a slice in which nothing folds has no second set, though its neighbour has
            frame.maps = found if sets != "auto" or found[-1].any() else found[:1]

    try:
        estimate()
        if _face_misfit([frame for frame, _ in pairs]):
            estimate()
    except InputError as error:
        if len(pairs) == 1:
            pairs[0][0].give_up(str(error))
            return
        for frame, own in pairs:
            _estimate_maps([frame], [own], sets, device)


def _face_misfit(frames: Sequence[_Frame]) -> bool:
    """Raise the noise to what the data show under the maps; tell whether any was raised."""
    changed = False
    for frame in frames:
        if frame.fallback is not None or frame.maps is None:
            continue
        before = frame.covariance
        shown = misfit.residual_covariance(frame.kspace, frame.maps)
        frame.covariance = misfit.raised(before, shown)  # type: ignore[arg-type]
        if frame.covariance is not before:
            changed = True
            logger.info(
                "the calibration lines show noise of sd %.4g where %.4g was thought",
                _sigma(frame.covariance),
                _sigma(frame.thermal),
            )
    return changed


def _draw(
    pairs: list[tuple[_Frame, int]],
    samples: int,
    where: torch.device,
    sample: Callable[[Sequence[_Frame], SampleNoise], int],
) -> int:
    """Sample slices in batches that fit the memory; returns the evaluations per sample."""
    evaluations = 0
    batches: list[list[tuple[_Frame, int]]] = []
    for sets in sorted({len(frame.maps) for frame, _ in pairs if frame.maps is not None}):
        alike = [pair for pair in pairs if pair[0].maps is not None and len(pair[0].maps) == sets]
        per_batch = max(1, BATCH_VALUES[where.type] // (samples * alike[0][0].kspace.size))
        batches += [alike[i : i + per_batch] for i in range(0, len(alike), per_batch)]
    while batches:
        batch = batches.pop(0)
        some, own = zip(*batch, strict=True)
        # one stream serves all slices that share a seed
        random = SampleNoise(own[:1] if len(set(own)) == 1 else own, samples, where)
        try:
            evaluations = max(evaluations, sample(some, random))
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            logger.warning("%d slices at once: out of memory on %s", len(batch), where)
            if len(batch) > 1:
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
            else:
                some[0].fallback = f"out of memory on {where}"
    return evaluations


@torch.no_grad()
def _sample(
    prior: Any,
    sampler: Sampler,
    options: Any,
    frames: Sequence[_Frame],
    random: SampleNoise,
) -> int:
    """Sample slices of one shape as one batch; returns the evaluations per sample."""

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
    operator = SenseOperator(maps, tensor([(f.kspace != 0).any(0) for f in frames]))
    scales = tensor([np.float32(f.scale) for f in frames])
    images, evaluations = sampler.draw(operator, data, 1 / scales, prior, random, options)
    count = operator.mask.sum((1, 2, 3, 4)) * maps.shape[2] * 2
    reduced = operator.reduced(data)[:, None]
    left = operator.residual_power(reduced, images).mean(1).sum((1, 2)) * scales**2 / count
    mean = operator.residual_power(reduced, images.mean(1, keepdim=True)).sum((1, 2, 3))
    rest = (operator.forward(images[:, :1])[:, 0] - data) * scales.view(-1, 1, 1, 1)
    y, x = (torch.linspace(-1, 1, n, device=random.device) for n in data.shape[-2:])
    radius = torch.hypot(y[:, None], x)
    outer = operator.mask[:, 0, 0] & (radius > OUTER[0]) & (radius < OUTER[1])
    for i, frame in enumerate(frames):
        values = rest[i][:, outer[i]].cpu().numpy().astype(np.complex128)
        back = np.linalg.inv(matrices[i]) @ values
        frame.left = back @ back.conj().T / max(1, values.shape[1])
        frame.samples = (_combined(images[i]) * frame.scale).cpu().numpy()
        frame.misfit = float(left[i])
        frame.distance = float(mean[i].sqrt()) * frame.scale
    return evaluations


def _learn_noise(frame: _Frame) -> bool:
    """Raise the noise to what the samples leave of the data; tell whether it was far too low.

    The sampler follows the level of the noise by itself, but not how it is spread over the coils.
    """
    if frame.fallback is not None or not np.isfinite(frame.misfit):
        return False
    believed = np.asarray(frame.covariance)
    more = misfit.raised(believed, frame.left)
    if _sigma(more) ** 2 < DOUBTFUL * _sigma(believed) ** 2:
        return False
    logger.info(
        "the samples show noise of sd %.4g where %.4g was thought: sampled again",
        _sigma(more),
        _sigma(believed),
    )
    frame.covariance = more
    return True


def _farther_than_classical(frame: _Frame) -> bool:
    """Whether the samples' mean misses the measured lines by more than a classical image does."""
    if frame.fallback is not None:
        return False
    # what the samples leave, in units of the noise before it was raised to fit them
    raised = (_sigma(frame.covariance) / _sigma(frame.before)) ** 2
    if frame.misfit * raised < DOUBTFUL:
        return False
    ksp, maps = frame.kspace, np.asarray(frame.maps)
    image = cg_sense(ksp, maps, frame.before)  # (set, y, x)
    rest = (to_kspace((maps * image[:, None]).sum(0)) - ksp) * (ksp != 0).any(0)
    whitening = noise.whitening_matrix(np.asarray(frame.covariance))
    theirs = float(np.linalg.norm(noise.whiten(rest, whitening)))
    return not frame.distance < FARTHER * theirs


def _sigma(covariance: NDArray[np.complex128] | None) -> float:
    return float("nan") if covariance is None else noise.noise_sigma(covariance)


def _sigma_used(frame: _Frame) -> float:
    """Sd of the noise that the likelihood allowed for in the end, over the measured samples."""
    more = frame.misfit if np.isfinite(frame.misfit) else 1.0
    return _sigma(frame.covariance) * float(np.sqrt(max(1.0, more)))


def _misfit(frame: _Frame) -> float:
    """Mean square of what the samples leave of the data, over that of the thermal noise."""
    thermal = _sigma(frame.thermal)
    return frame.misfit * (_sigma(frame.covariance) / thermal) ** 2 if thermal else float("nan")


def _combined(images: torch.Tensor) -> torch.Tensor:
    """One image of the sets (..., set, y, x): root sum of squares with the first set's phase."""
    if images.shape[-3] == 1:
        return images[..., 0, :, :]
    magnitude = images.abs().square().sum(-3).sqrt()
    return torch.polar(magnitude, images[..., 0, :, :].angle())


def _assembled(
    frames: list[_Frame], stack: Array, grid: _Grid, count: int, info: Info
) -> Reconstruction:
    ny, nx = grid.shape
    sets = max((len(f.maps) for f in frames if f.maps is not None), default=1)
    means, samples, maps = [], [], []
    for frame, full in zip(frames, stack, strict=True):
        own = np.full((sets, *full.shape), np.nan, np.complex64)
        if frame.maps is not None:
            own[:] = 0
            own[: len(frame.maps)] = grid.maps_back(frame.maps)
        if frame.fallback is None and frame.samples is not None:
            samples.append(grid.back(frame.samples))
            means.append(samples[-1].mean(0))
        else:
            samples.append(np.full((count, ny, nx), np.nan, np.complex64))
            means.append(best_classical(full, None if frame.maps is None else own, frame.before))
        maps.append(own)
    stacked = np.stack(samples).astype(np.complex64)
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
