"""The front door: k-space in, posterior samples, their mean and standard deviation out."""

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
from scoremri_core.recon.progress import Callback, Reporter
from scoremri_core.recon.request import Request
from scoremri_core.recon.result import Info, Reconstruction, describe_inconsistent_lines
from scoremri_core.recon.sample import sample
from scoremri_core.recon.volume import join, split
from scoremri_core.samplers.random_numbers import derived_seed
from scoremri_core.samplers.registry import Options

logger = logging.getLogger(__name__)

BLOCK = 16  # slices processed at once, which bounds the memory of maps and solver
SECONDS_PER_LOG = 30.0
REQUESTED = ("sampler", "samples", "steps", "maps", "scale", "seed", "device")


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

    Parameters
    ----------
    kspace : complex array or tensor, (coil, y, x) or (slice, coil, y, x)
        Centred k-space, zero where not sampled (a sample is measured where any coil is not zero).
        A torch tensor gives tensors.
    mask : bool array, (y,), (y, x) or (slice, y, x), optional
        Which samples were measured. By default, those that are not zero in every coil.
    averages : array, shape as `mask`, optional
        Number of readouts that each sample is the mean of. A sample averaged n times has the noise
        `noise_covariance / n`, and counts n times. By default 1.
    calibration : complex array, shape of `kspace`, optional
        K-space of the calibration lines. By default they are found in `kspace`.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H] of the complex noise. By default it is estimated from the edges of k-space. It is
        raised where the data show more noise (`scoremri_core.recon.noise_model`).
    prior : str or Denoiser
        Name of a shipped prior ("default" is the one of the sampler), path of a .safetensors file,
        or any object with `denoise(x, sigma)`.
    sampler : str or options object
        One of `scoremri_core.samplers.SAMPLERS`, or an object of its options, such as
        `PosteriorOptions(steps=9)`; "none" gives the classical image alone.
    samples : int
        Number of posterior samples.
    steps : int, optional
        Noise levels of the sampler. By default the sampler's own number.
    maps : 1, 2, "auto", or complex array
        Sets of coil maps to estimate ("auto" takes two in a slice in which parts of the object fold
        onto each other), or the maps: (coil, y, x) or (set, coil, y, x), either with a leading
        slice axis where `kspace` has one.
    scale : float, optional
        Image value that the prior sees as 1. By default the 99th percentile of the coil-combined
        zero-filled image, slice by slice.
    seed : int or sequence of int
        Sample i depends on the seed and on i alone. A sequence holds one seed for each slice.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    callback : callable, optional
        Called with a `Progress` after each noise level. What it raises ends the call.
    **sampler_options
        Fields of the sampler's options by name.

    Returns
    -------
    Reconstruction
        A slice that cannot be sampled (no calibration lines, out of memory, samples that do not fit
        the data) holds the best classical image; `info.fallback` says why. Samples of k-space that
        are not finite count as not measured.

    Raises
    ------
    InputError
        Arguments of the wrong shape, name, kind or range; a prior that returns another shape, or
        real values.

    Notes
    -----
    Where the samples span less than the matrix (an interpolated image), the image is sampled on
    the grid that they span and interpolated: nothing is invented where nothing was measured.
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
    """Draw posterior samples of a volume, position by position along its complete axis.

    All positions share one noise covariance and one scale. A position without signal takes the
    calibration lines of the nearest one that has some.

    Parameters
    ----------
    kspace : complex array or tensor, (coil, z, y, x)
        Centred k-space, zero where not sampled; y and z are the phase-encode directions. Samples
        that its readouts lack (partial echo) are taken as zero if the readout is the complete axis.
    mask : bool array, (z, y) or (z, y, x), optional
        Which samples were measured. By default, those that are not zero in every coil.
    averages : array, (z, y, x), optional
        Number of readouts that each sample is the mean of. By default 1.
    calibration : complex array, shape of `kspace`, optional
        K-space of the calibration lines. By default they are found in `kspace`.
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H] of a sample that was averaged once. By default it is estimated.
    maps : 1, 2, "auto", or complex array, (coil, z, y, x) or (set, coil, z, y, x)
        Sets of coil maps to estimate, or the maps.
    scale : float, optional
        Image value that the prior sees as 1. By default the 99th percentile of the zero-filled
        image: its median over the positions that reach half of its maximum.
    seed : int
        Sample i of a position depends on the seed, on i and on the position.
    prior, sampler, samples, steps, device, callback, **sampler_options
        As for `reconstruct`; slices of the callback are positions.

    Returns
    -------
    Reconstruction
        With mean and std (z, y, x), samples (z, sample, y, x), and no maps. Positions that cannot
        be sampled hold classical images; `info.fallback` says why.

    Raises
    ------
    InputError
        Arguments of the wrong shape, name or range.
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
    **asked: Any,
) -> tuple[list[KSpace], Request]:
    """Check the arguments of `reconstruct`; calibration lines may be a list of KSpace.

    Raises
    ------
    InputError
        Names the argument that is wrong.
    """
    slices = KSpace.stack(
        kspace,
        mask=mask,
        averages=averages,
        calibration=calibration,
        noise_covariance=noise_covariance,
    )
    named = {name: asked.pop(name) for name in REQUESTED if name in asked}
    return slices, Request.of(np.shape(kspace), **named, sampler_options=asked)


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
    """Reconstruct checked k-space: what arrays, volumes and the stream have in common.

    Parameters
    ----------
    slices : sequence of KSpace, (coil, y, x) each
    request : Request
    prior : str or Denoiser
    calibrated : sequence of Calibrated, optional
        What `calibrate` gives for each slice, if it was called before.
    callback : callable, optional
    memo : Memo, optional
        Keeps coil maps for later calls.
    """
    start = time.perf_counter()
    denoiser = request.drawing.prior(prior)
    if isinstance(denoiser, ModelPrior):
        denoiser = denoiser.to(request.device)
    reporter = Reporter(callback, len(slices))
    memo = Memo() if memo is None else memo
    parts: list[Finished] = []
    warnings: list[str | None] = []
    evaluations = 0
    for block in _blocks(len(slices)):
        some = request.of_slices(block)
        if calibrated is None:
            maps = some.maps if isinstance(some.maps, list) else [some.maps] * len(some.seeds)
            pairs = zip(slices[block], maps, strict=True)
            found = [calibrate(own, m, str(request.device), memo) for own, m in pairs]
        else:
            found = list(calibrated[block])
        warnings += [known.warning for known in found]
        prepared = [
            prepare(own, known, block.start + i, some.seeds[i], request.scale)
            for i, (own, known) in enumerate(zip(slices[block], found, strict=True))
        ]
        reporter.skip([own.number for own in prepared if own.fallback is not None])
        if denoiser is not None:
            drawn = sample(
                prepared, request.drawing, denoiser, request.samples, request.device, reporter
            )
            evaluations = max(evaluations, drawn)
        parts += [finish(own, request) for own in prepared]
    _log("%s", warnings, len(slices))
    shares = [part.inconsistent_lines for part in parts if part.inconsistent_lines > 0]
    _log(
        "%s",
        [describe_inconsistent_lines(max(shares))] * len(shares) if shares else [],
        len(slices),
    )
    fallbacks = [part.fallback for part in parts]
    _log("classical image instead of samples: %s", fallbacks, len(slices))
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
    """Reconstruct checked k-space of a volume: split it, reconstruct its positions, join them.

    Parameters
    ----------
    volume : KSpace, (coil, z, y, x)
    request : Request
        Of one slice; its seed is that of the volume.
    prior : str or Denoiser
    maps : complex array, (coil, z, y, x) or (set, coil, z, y, x), optional
    callback : callable, optional
    """
    start = time.perf_counter()
    positions = split(volume)
    count = len(positions.slices)
    # neighbours with the same random numbers would err alike, which shows as stripes
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
    """What needs nothing but finite values: the image of a slice or volume where all else failed.

    Parameters
    ----------
    kspace : KSpace
    request : Request
    reason : str or None
        Why it is no other image.
    """
    axes = tuple(range(1, kspace.values.ndim))
    image = np.linalg.norm(to_image(kspace.values, axes=axes), axis=0).astype(np.complex64)
    mean = kspace.image(image if kspace.is_volume else image[None])
    unknown = (float("nan"),)
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
            unsampled_fraction=unknown,
            sigma_n=unknown,
            sigma_thermal=unknown,
            misfit=unknown,
            scale=unknown,
            inconsistent_lines=unknown,
            fallback=(reason,),
        ),
        references=dict.fromkeys(request.references, mean),
    )


def _log(message: str, reasons: Sequence[str | None], slices: int) -> None:
    """Warn once of each reason, with the number of slices that it concerns."""
    for reason, count in Counter(reason for reason in reasons if reason).items():
        some = f" ({count} of {slices} slices)" if slices > 1 else ""
        logger.warning(message + "%s", reason, some)


def _blocks(slices: int) -> Iterator[slice]:
    """Blocks of slices; long work is logged as they are done."""
    start = logged = time.perf_counter()
    for first in range(0, slices, BLOCK):
        block = slice(first, min(first + BLOCK, slices))
        yield block
        now, done = time.perf_counter(), block.stop
        if now - logged > SECONDS_PER_LOG and done < slices:
            logged = now
            left = (now - start) / done * (slices - done)
            logger.info("%d of %d slices done, %.0f s left", done, slices, left)
