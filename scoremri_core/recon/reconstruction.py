"""Reconstruction of slices, stacks and volumes from arrays or checked k-space."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from scoremri_core.isolation import isolated
from scoremri_core.kspace import KSpace
from scoremri_core.mri.fourier import to_image
from scoremri_core.priors import Denoiser
from scoremri_core.priors.model import ModelPrior
from scoremri_core.recon.assemble import Finished, assemble, finish
from scoremri_core.recon.calibrate import Calibrated, calibrate
from scoremri_core.recon.memo import Memo
from scoremri_core.recon.prepare import prepare
from scoremri_core.recon.progress import Callback, LevelReporter
from scoremri_core.recon.request import Request
from scoremri_core.recon.result import (
    PER_SLICE,
    Info,
    Reconstruction,
    describe_inconsistent_lines,
)
from scoremri_core.recon.sample import sample
from scoremri_core.recon.volume import join, split
from scoremri_core.samplers.random_numbers import derived_seed
from scoremri_core.samplers.registry import Options

logger = logging.getLogger(__name__)

BLOCK = 16  # slices in memory at once
SECONDS_PER_LOG = 30.0
REQUEST_ARGUMENTS = ("sampler", "samples", "steps", "maps", "scale", "seed", "device")


@isolated
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

    Samples of p(image | k-space), docs/methods.md, Eq. (2).

    Parameters
    ----------
    kspace : complex array or tensor, (coil, y, x) or (slice, coil, y, x)
        Centred k-space, zero where not sampled. Values that are not finite count as not sampled.
        For a tensor, the result holds tensors.
    mask : bool array, (y,), (y, x) or (slice, y, x), optional
        Measured samples. Default: those that are not zero in every coil.
    averages : array, shape of `mask`, optional
        Number of averages n of each sample, whose noise is `noise_covariance / n`. Default: 1.
    calibration : complex array, shape of `kspace`, optional
        K-space of the calibration lines. Default: `kspace`.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H] of the complex noise. Default: estimated from the edges of k-space. Raised if the
        data show more noise (`scoremri_core.recon.noise_model`).
    prior : str or Denoiser
        Name of a shipped prior, path of a .safetensors file, or an object with
        `denoise(x, sigma)`. "default" is the prior of the sampler.
    sampler : str or options object
        Name in `scoremri_core.samplers.SAMPLERS` or its options, such as
        `PosteriorOptions(steps=9)`. "none" returns the classical image only.
    samples : int
        Number of posterior samples.
    steps : int, optional
        Number of noise levels. Default: that of the sampler.
    maps : 1, 2, "auto", or complex array
        Sets of coil maps to estimate ("auto": two in slices with an aliased object), or the maps:
        (coil, y, x) or (set, coil, y, x), with a leading slice axis if `kspace` has one.
    scale : float, optional
        Image value that the prior sees as 1. Default: the 99th percentile of the coil-combined
        zero-filled image of each slice.
    seed : int or sequence of int
        Seed, or one per slice. Sample i depends on the seed and i only.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    callback : callable, optional
        Called with a `Progress` after each noise level. An exception in it ends the call.
    **sampler_options
        Fields of the sampler's options.

    Returns
    -------
    Reconstruction
        Slices that cannot be sampled (no calibration lines, out of memory, samples that do not fit
        the data) hold the best classical image, with the reason in `info.fallback`.

    Raises
    ------
    InputError
        An argument has the wrong shape, type, name or range, or the prior returns a wrong shape or
        real values.

    Notes
    -----
    If the k-space samples cover less than the matrix (interpolated images), the image is sampled
    on the smaller grid and interpolated.
    """
    slices, request = read_arguments(
        kspace,
        mask=mask,
        averages=averages,
        calibration=calibration,
        noise_covariance=noise_covariance,
        sampler=sampler,
        samples=samples,
        steps=steps,
        maps=maps,
        scale=scale,
        seed=seed,
        device=device,
        **sampler_options,
    )
    result = reconstruct_slices(slices, request, prior, callback=callback)
    return result.as_tensors(kspace.device) if isinstance(kspace, Tensor) else result


@isolated
def reconstruct_volume(
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
    seed: int = 0,
    device: str = "auto",
    callback: Callback | None = None,
    **sampler_options: Any,
) -> Reconstruction:
    """Draw posterior samples of a volume, position by position along its fully sampled axis.

    All positions share a noise covariance and a scale. Positions without signal are calibrated on
    the nearest one with signal.

    Parameters
    ----------
    kspace : complex array or tensor, (coil, z, y, x)
        Centred k-space, zero where not sampled; y and z are the phase-encode directions. Partial
        readouts are zero-filled if the readout is the fully sampled axis.
    mask : bool array, (z, y) or (z, y, x), optional
        Measured samples. Default: those that are not zero in every coil.
    averages : array, (z, y, x), optional
        Number of averages of each sample. Default: 1.
    calibration : complex array, shape of `kspace`, optional
        K-space of the calibration lines. Default: `kspace`.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H] of a sample with one average. Default: estimated.
    prior : str or Denoiser
        See `reconstruct`.
    sampler : str or options object
        See `reconstruct`.
    samples : int
        Number of posterior samples.
    steps : int, optional
        Number of noise levels. Default: that of the sampler.
    maps : 1, 2, "auto", or complex array, (coil, z, y, x) or (set, coil, z, y, x)
        Sets of coil maps to estimate, or the maps.
    scale : float, optional
        Image value that the prior sees as 1. Default: the 99th percentile of the zero-filled image
        of a position, its median over the positions that reach half of the maximum.
    seed : int
        Sample i of a position depends on the seed, i and the position.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    callback : callable, optional
        See `reconstruct`; its slices are positions.
    **sampler_options
        Fields of the sampler's options.

    Returns
    -------
    Reconstruction
        With mean and std (z, y, x), samples (z, sample, y, x), and no maps. Positions that cannot
        be sampled hold classical images, with the reason in `info.fallback`.

    Raises
    ------
    InputError
        An argument has the wrong shape, type, name or range.
    """
    volume = KSpace.volume(
        kspace,
        mask=mask,
        averages=averages,
        calibration=calibration,
        noise_covariance=noise_covariance,
    )
    estimated = isinstance(maps, (int, str))
    request = Request.of(
        np.shape(kspace)[:1] + np.shape(kspace)[2:],
        sampler=sampler,
        samples=samples,
        steps=steps,
        maps=maps if estimated else "auto",
        scale=scale,
        seed=seed,
        device=device,
        sampler_options=sampler_options,
    )
    result = reconstruct_kspace_volume(
        volume, request, prior, maps=None if estimated else maps, callback=callback
    )
    return result.as_tensors(kspace.device) if isinstance(kspace, Tensor) else result


def read_arguments(
    kspace: Any,
    *,
    mask: Any = None,
    averages: Any = None,
    calibration: Any = None,
    noise_covariance: Any = None,
    **arguments: Any,
) -> tuple[list[KSpace], Request]:
    """Check the arguments of `reconstruct`.

    Parameters
    ----------
    kspace : complex array or tensor
        See `reconstruct`, as for the others.
    mask : bool array, optional
    averages : array, optional
    calibration : complex array, or list of KSpace, optional
    noise_covariance : complex array, optional
    **arguments

    Returns
    -------
    slices : list of KSpace
    request : Request

    Raises
    ------
    InputError
        An argument has the wrong shape, type, name or range.
    """
    slices = KSpace.stack(
        kspace,
        mask=mask,
        averages=averages,
        calibration=calibration,
        noise_covariance=noise_covariance,
    )
    named = {name: arguments.pop(name) for name in REQUEST_ARGUMENTS if name in arguments}
    return slices, Request.of(np.shape(kspace), **named, sampler_options=arguments)


@isolated
def reconstruct_slices(
    slices: Sequence[KSpace],
    request: Request,
    prior: str | Denoiser = "default",
    *,
    calibrated: Sequence[Calibrated] | None = None,
    callback: Callback | None = None,
    memo: Memo | None = None,
) -> Reconstruction:
    """Reconstruct checked k-space of a stack of slices.

    Parameters
    ----------
    slices : sequence of KSpace, (coil, y, x)
    request : Request
    prior : str or Denoiser
        See `reconstruct`.
    calibrated : sequence of Calibrated, optional
        Result of `calibrate` for each slice. Default: computed.
    callback : callable, optional
        See `reconstruct`.
    memo : Memo, optional
        Cache of coil maps.

    Returns
    -------
    Reconstruction
    """
    start = time.perf_counter()
    denoiser = request.drawing.prior(prior)
    if isinstance(denoiser, ModelPrior):
        denoiser = denoiser.to(request.device)
    reporter = LevelReporter(callback, len(slices))
    memo = Memo() if memo is None else memo
    parts: list[Finished] = []
    warnings: list[str | None] = []
    evaluations = 0
    for block in _blocks(len(slices)):
        of_block = request.of_slices(block)
        if calibrated is None:
            given = of_block.maps
            maps = given if isinstance(given, list) else [given] * len(of_block.seeds)
            pairs = zip(slices[block], maps, strict=True)
            calibrations = [calibrate(k, m, str(request.device), memo) for k, m in pairs]
        else:
            calibrations = list(calibrated[block])
        warnings += [calibration.warning for calibration in calibrations]
        prepared = [
            prepare(kspace, calibration, block.start + i, of_block.seeds[i], request.scale)
            for i, (kspace, calibration) in enumerate(zip(slices[block], calibrations, strict=True))
        ]
        reporter.skip([slice_.number for slice_ in prepared if slice_.fallback is not None])
        if denoiser is not None:
            drawn = sample(
                prepared, request.drawing, denoiser, request.samples, request.device, reporter
            )
            evaluations = max(evaluations, drawn)
        parts += [finish(slice_, request) for slice_ in prepared]
    _warn_once("%s", warnings)
    fractions = [part.inconsistent_lines for part in parts]
    worst = describe_inconsistent_lines(max((f for f in fractions if f > 0), default=0.0))
    _warn_once("%s", [worst if f > 0 else None for f in fractions])
    _warn_once("classical image instead of samples: %s", [part.fallback for part in parts])
    result = assemble(request, parts, slices[0].coils, denoiser, evaluations)
    return replace(result, info=replace(result.info, seconds=time.perf_counter() - start))


@isolated
def reconstruct_kspace_volume(
    volume: KSpace,
    request: Request,
    prior: str | Denoiser = "default",
    *,
    maps: Any = None,
    callback: Callback | None = None,
) -> Reconstruction:
    """Reconstruct checked k-space of a volume.

    Parameters
    ----------
    volume : KSpace, (coil, z, y, x)
    request : Request
        Of one slice, with the seed of the volume.
    prior : str or Denoiser
        See `reconstruct`.
    maps : complex array, (coil, z, y, x) or (set, coil, z, y, x), optional
        Coil maps. Default: estimated as `request` says.
    callback : callable, optional
        See `reconstruct`.

    Returns
    -------
    Reconstruction
        See `reconstruct_volume`.
    """
    start = time.perf_counter()
    positions = split(volume)
    count = len(positions.slices)
    # equal random numbers at neighbouring positions would show as stripes
    seeds = [derived_seed(request.seeds[0], i) for i in range(count)]
    stack = replace(
        request,
        seeds=seeds,
        maps=request.maps if maps is None else positions.maps(maps),
        scale=positions.scale * volume.unit if request.scale is None else request.scale,
        virtual_coil=positions.virtual_coil,
        keep_maps=False,
    )
    result = reconstruct_slices(positions.slices, stack, prior, callback=callback)
    joined = join(result, positions, request.seeds[0])
    return replace(joined, info=replace(joined.info, seconds=time.perf_counter() - start))


def root_sum_of_squares_only(
    kspace: KSpace, request: Request, reason: str | None
) -> Reconstruction:
    """Return the root sum of squares of a slice or volume, when all other reconstructions failed.

    Parameters
    ----------
    kspace : KSpace
    request : Request
    reason : str or None
        Recorded as `info.fallback`.

    Returns
    -------
    Reconstruction
        Without samples and maps.
    """
    axes = tuple(range(1, kspace.values.ndim))
    image = np.linalg.norm(to_image(kspace.values, axes=axes), axis=0).astype(np.complex64)
    mean = kspace.image(image if kspace.is_volume else image[None])
    per_slice: dict[str, Any] = dict.fromkeys(PER_SLICE, (float("nan"),))
    per_slice["fallback"] = (reason,)
    return Reconstruction(
        mean=mean,
        std=np.full(mean.shape, np.nan, np.float32),
        samples=np.empty((len(mean), 0, *mean.shape[1:]), np.complex64),
        maps=np.empty((len(mean), 0, 0, *mean.shape[1:]), np.complex64),
        info=Info(
            sampler="none",
            samples=0,
            prior="none",
            seed=request.seeds[0],
            steps=0,
            evaluations=0,
            **per_slice,
        ),
        references=dict.fromkeys(request.references, mean),
    )


def _warn_once(message: str, reasons: Sequence[str | None]) -> None:
    """Log each reason of the slices once, with the number of slices."""
    for reason, count in Counter(reason for reason in reasons if reason).items():
        slices = f" ({count} of {len(reasons)} slices)" if len(reasons) > 1 else ""
        logger.warning(message + "%s", reason, slices)


def _blocks(slices: int) -> Iterator[slice]:
    """Yield blocks of slices and log the progress of long calls."""
    start = logged = time.perf_counter()
    for first in range(0, slices, BLOCK):
        block = slice(first, min(first + BLOCK, slices))
        yield block
        now, done = time.perf_counter(), block.stop
        if now - logged > SECONDS_PER_LOG and done < slices:
            logged = now
            left = (now - start) / done * (slices - done)
            logger.info("%d of %d slices done, %.0f s left", done, slices, left)
