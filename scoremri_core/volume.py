"""A scan with two phase-encode directions, as a stack of two-dimensional problems.

Along an axis whose samples are complete the transform to the image is exact, and what is left at
each position of that axis is a two-dimensional problem of its own: along the partitions where
every line has all of them, along the readout otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri import noise
from scoremri_core.mri.classical import best_classical, root_sum_of_squares
from scoremri_core.mri.coil_maps import calibration_extent, estimate_coil_maps
from scoremri_core.mri.fourier import to_image
from scoremri_core.priors import Denoiser
from scoremri_core.progress import Callback, Progress
from scoremri_core.reconstruction import reconstruct
from scoremri_core.request import TINY, as_complex, find_device, scaled, unit_of
from scoremri_core.result import Info, Reconstruction
from scoremri_core.samplers.random_numbers import derived_seed
from scoremri_core.samplers.registry import find_sampler

logger = logging.getLogger(__name__)

PARTITION, READOUT = 1, 3  # axes of (coil, z, y, x)

BLOCK = 16  # positions sampled in one call, which bounds the memory of maps and solver
SECONDS_PER_LOG = 30.0
NOISE_POSITIONS = 16  # looked at for the noise; the quietest quarter of them counts
CENTRE = 8  # samples on either side of DC where signal is looked for
SIGNAL = 2.0  # power there, over that of the noise, at a position that has signal
LEAST_SIGNAL = 1e-4  # and over the largest power, for data without noise

Array = NDArray[np.complex64]


def reconstruct_volume(
    kspace: ArrayLike,
    *,
    averages: ArrayLike | None = None,
    calibration: ArrayLike | None = None,
    noise_covariance: ArrayLike | None = None,
    prior: str | Denoiser = "default",
    sampler: str = "posterior",
    maps: int | str = "auto",
    scale: float | None = None,
    seed: int = 0,
    device: str = "auto",
    callback: Callback | None = None,
    **options: Any,
) -> Reconstruction:
    """Draw posterior samples of a volume, position by position; progress is logged.

    All positions share one noise covariance and one scale.  A position without signal is sampled
    like any other, with the coil maps of its nearest neighbour that has some.

    Parameters
    ----------
    kspace : complex (coil, z, y, x), centred, zero where not sampled; y and z are the
        phase-encode directions.  Samples that its readouts lack (partial echo) are taken as zero
        where the readout is the axis that is transformed.
    averages : (z, y, x), how many readouts each sample is the mean of; None takes all for 1.  At a
        position the noise is that of the mean over the axis that is transformed.
    calibration : k-space of the calibration lines, like `kspace`; None finds them in `kspace`.
    noise_covariance : (coil, coil), E[n n^H] of the complex noise, in a sample of averages 1;
        None estimates it.
    maps : sets of coil maps to estimate, 1, 2 or "auto", as for `reconstruct`.
    scale : image value that the prior sees as 1; None takes the 99th percentile of the
        zero-filled image: its median over the positions that reach half of its maximum.
    seed : sample i of a position depends on the seed, on i and on the position.
    prior, sampler, device, options : as for `scoremri_core.reconstruct`.
    callback : as for `scoremri_core.reconstruct`; its slices are positions.

    Returns
    -------
    Reconstruction with mean and std (z, y, x), samples (z, sample, y, x), and no maps.  A volume
    that cannot be sampled holds classical images; `info.fallback` says why.

    Raises
    ------
    InputError : arguments of the wrong shape, name or range.
    """
    start = time.perf_counter()
    if maps not in (1, 2, "auto"):
        raise InputError(f"maps is {maps!r}: expected 1 or 2 sets, or auto")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale is {scale}: expected a number above 0")
    where = find_device(device)
    if len(np.shape(kspace)) != 4 or 0 in np.shape(kspace):
        raise InputError(f"kspace has shape {np.shape(kspace)}: expected (coil, z, y, x)")
    if calibration is not None and np.shape(calibration) != np.shape(kspace):
        raise InputError(
            f"calibration has shape {np.shape(calibration)}: expected that of kspace, "
            f"{np.shape(kspace)}"
        )
    volume = as_complex("kspace", kspace)
    # as in a request: no square leaves the range of float32
    unit = unit_of(volume)
    stack = _Stack.of(
        scaled(volume, unit),
        None if calibration is None else scaled(as_complex("calibration", calibration), unit),
        None if averages is None else _checked(averages, volume.shape),
    )
    if noise_covariance is None:
        noise_covariance = stack.noise_covariance()
    else:
        noise_covariance = np.asarray(noise_covariance, np.complex128) / unit**2
        noise_covariance /= stack.fewest
    scale = stack.scale() if scale is None else scale / unit
    nearest = stack.nearest_with_signal(noise_covariance)
    if problem := stack.problem(nearest):
        logger.warning("classical volume instead of samples: %s", problem)
        parts = [stack.classical(noise_covariance)]
    else:
        denoiser = find_sampler(sampler, None, {}).prior(prior)
        parts = []
        for block in _told(len(stack.kspace)):
            own = stack.coil_maps(nearest[block], maps, noise_covariance, str(where))
            part = reconstruct(
                stack.kspace[block],
                averages=stack.averages,
                maps=own,
                noise_covariance=noise_covariance,
                prior=prior if denoiser is None else denoiser,
                sampler=sampler,
                scale=scale,
                # Neighbours with the same random numbers would err alike, which shows as stripes.
                seed=[derived_seed(seed, i) for i in range(block.start, block.stop)],
                device=device,
                callback=callback and partial(_in_volume, callback, block, len(stack.kspace)),
                **options,
            )
            parts.append(_in_phase(part, own[:, 0], stack.virtual_coil))
    info = replace(
        parts[0].info,
        seed=seed,
        evaluations=max(part.info.evaluations for part in parts),
        sigma_n=(_mean(parts, "sigma_n") * unit,),
        sigma_thermal=(noise.noise_sigma(noise_covariance) * unit,),
        misfit=(_mean(parts, "misfit"),),
        inconsistent_lines=(_mean(parts, "inconsistent_lines"),),
        scale=(float(scale) * unit,),
        fallback=(problem or _fallback(parts),),
        seconds=time.perf_counter() - start,
    )
    return stack.assembled(parts, info, np.float32(unit))


def _in_volume(callback: Callback, block: slice, positions: int, progress: Progress) -> None:
    """Tell of a block of positions as of a part of the volume."""
    done = block.start + progress.done * (block.stop - block.start)
    slices = tuple(block.start + number for number in progress.slices)
    callback(replace(progress, slices=slices, done=done / positions))


def _told(positions: int) -> Iterator[slice]:
    """Blocks of positions; the progress is logged as they are done."""
    start = told = time.perf_counter()
    for first in range(0, positions, BLOCK):
        block = slice(first, min(first + BLOCK, positions))
        yield block
        now, done = time.perf_counter(), block.stop
        if now - told > SECONDS_PER_LOG and done < positions:
            told = now
            left = (now - start) / done * (positions - done)
            logger.info("volume: %d of %d positions, %.0f s to go", done, positions, left)


def _in_phase(part: Reconstruction, maps: Array, virtual_coil: Array) -> Reconstruction:
    """Positions with the phase that the virtual coil sees, and without their maps.

    Coil maps leave the phase of an image open, and those of each position settle it differently.
    """
    seen = np.tensordot(maps, virtual_coil.conj(), axes=(1, 0))
    phase = np.exp(1j * np.angle(seen)).astype(np.complex64)
    return replace(
        part,
        mean=part.mean * phase,
        samples=part.samples * phase[:, None],
        maps=part.maps[:, :0],
    )


def _mean(parts: list[Reconstruction], name: str) -> float:
    """Of a field of `Info`, over the positions where it is known."""
    values = np.concatenate([getattr(part.info, name) for part in parts])
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _fallback(parts: list[Reconstruction]) -> str | None:
    """Why some positions were not sampled, None where all were."""
    reasons = [reason for part in parts for reason in part.info.fallback]
    failed = [reason for reason in reasons if reason]
    if not failed:
        return None
    return f"{len(failed)} of {len(reasons)} positions: {failed[0]}"


@dataclass(frozen=True)
class _Stack:
    """The positions of a volume, each a two-dimensional k-space.

    Attributes
    ----------
    kspace, calibration : (position, coil, a, b), zero where not sampled.
    averages : (a, b), how often each sample was averaged over how often those averaged least were,
        0 where not sampled; or None where all are alike.
    axis : of the volume, that the positions lie along.
    fewest : averages of those averaged least.
    finite : whether all samples were; those of `kspace` that were not count as not measured.
    """

    kspace: Array
    calibration: Array
    averages: NDArray[np.float32] | None
    axis: int
    finite: bool
    fewest: float = 1.0

    @classmethod
    def of(
        cls, ksp: Array, other: Array | None, averages: NDArray[np.float32] | None = None
    ) -> _Stack:
        """Transform k-space, and that of the calibration, along the axis that is complete."""
        valid = np.isfinite(ksp).all(axis=0)
        finite = bool(valid.all())
        if not finite:
            ksp = np.where(valid, ksp, 0)
        measured = (ksp != 0).any(axis=0)
        lines = measured.any(axis=2)
        axis = PARTITION if lines.all(axis=0)[lines.any(axis=0)].all() else READOUT
        if axis == READOUT and not measured.any(axis=(0, 1)).all():
            logger.info("volume: samples that its readouts lack are taken as zero")
        stack = _transformed(ksp, axis)
        # Without noise the transform can be zero; a sample that is zero counts as not measured.
        plane = measured.any(axis=axis - 1)
        empty = plane & (stack == 0).all(axis=1)
        np.moveaxis(stack, 1, -1)[empty] = TINY
        finite = finite and (other is None or bool(np.isfinite(other).all()))
        calibration = stack if other is None else _transformed(other, axis)
        if averages is None:
            return cls(stack, calibration, None, axis, finite)
        plain = _of_plane(averages, measured, axis - 1)
        fewest = float(plain[plain > 0].min(initial=np.inf))
        alike = not (plain > fewest).any()
        return cls(
            stack,
            calibration,
            None if alike else plain / np.float32(fewest),
            axis,
            finite,
            1.0 if np.isinf(fewest) else fewest,
        )

    def noise_covariance(self) -> NDArray[np.complex128]:
        """Estimated at positions all along the volume, of which the quietest count."""
        some = self.kspace[:: -(-len(self.kspace) // NOISE_POSITIONS)]
        found = sorted(
            (noise.covariance_from_edges(ksp, self.averages) for ksp in some),
            key=lambda c: np.trace(c).real,
        )
        return np.asarray(np.mean(found[: -(-len(found) // 4)], axis=0))

    def scale(self) -> float:
        """Median over the bright positions of the 99th percentile of the zero-filled image.

        The root sum of squares of the coils stands in for the combination with coil maps: the
        two percentiles are within 1 % of one another.
        """
        high = np.array([np.percentile(root_sum_of_squares(ksp), 99) for ksp in self.kspace])
        return float(np.median(high[high >= high.max() / 2]))

    def nearest_with_signal(self, covariance: Any) -> NDArray[np.intp]:
        """For each position the nearest one that has signal; empty where none has."""
        whitening = noise.whitening_matrix(covariance)
        na, nb = self.kspace.shape[-2:]
        centre = tuple(slice(max(0, n // 2 - CENTRE), n // 2 + CENTRE) for n in (na, nb))
        middle = noise.whiten(self.kspace[:, :, centre[0], centre[1]], whitening)
        measured = (self.kspace[0, :, centre[0], centre[1]] != 0).any(axis=0)
        if not measured.any():
            return np.zeros(0, np.intp)
        power = np.mean(np.abs(middle[:, :, measured]) ** 2, axis=(1, 2)) / 2  # of noise: 1
        signal = np.flatnonzero(power > max(SIGNAL, LEAST_SIGNAL * power.max(initial=0)))
        if not len(signal):
            return signal
        distance = np.abs(np.arange(len(power))[:, None] - signal)
        return signal[distance.argmin(axis=1)]

    def problem(self, nearest: NDArray[np.intp]) -> str | None:
        """Why the volume cannot be sampled, None where it can."""
        if not self.finite:
            return "the k-space holds values that are not finite"
        if not len(nearest):
            return "the volume holds no signal"
        try:
            for position in np.unique(nearest):
                calibration_extent(self.calibration[position])
        except InputError as error:
            return str(error)
        return None

    def coil_maps(
        self, positions: NDArray[np.intp], sets: int | str, covariance: Any, device: str
    ) -> Array:
        """Maps (position, set, coil, a, b), estimated once where a position is repeated."""
        unique, index = np.unique(positions, return_inverse=True)
        maps: Array = estimate_coil_maps(self.calibration[unique], sets, covariance, device=device)
        return maps[index]

    @cached_property
    def virtual_coil(self) -> Array:
        """Combination (coil,) of the coils that sees most of the signal."""
        na, nb = self.calibration.shape[-2:]
        middle = self.calibration[..., na // 2 - 1 : na // 2 + 2, nb // 2 - 1 : nb // 2 + 2]
        flat = np.moveaxis(middle, 1, 0).reshape(middle.shape[1], -1)
        principal: Array = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
        return principal

    def classical(self, covariance: Any) -> Reconstruction:
        """The best classical image of each position."""
        images = []
        for ksp, calibration in zip(self.kspace, self.calibration, strict=True):
            try:
                maps = estimate_coil_maps(calibration, 1, covariance)
            except InputError:
                maps = None
            images.append(best_classical(ksp, maps, covariance, self.averages))
        mean = np.stack(images)
        info = Info("none", 0, "none", 0, 0, 0, sigma_n=(0.0,))
        empty = np.empty((len(mean), 0, *mean.shape[1:]), np.complex64)
        std = np.full(mean.shape, np.nan, np.float32)
        return Reconstruction(mean, std, empty, empty, info)

    def assembled(
        self, parts: list[Reconstruction], info: Info, unit: np.float32
    ) -> Reconstruction:
        """The volume of its positions, in the caller's units."""
        drawn = np.concatenate([part.samples for part in parts]) * unit
        mean = np.concatenate([part.mean for part in parts]) * unit
        std = np.concatenate([part.std for part in parts]) * unit
        shape = list(self.kspace.shape)
        if self.axis == READOUT:
            drawn = np.moveaxis(drawn, 0, -1).swapaxes(0, 1)  # (sample, z, y, x) to (z, sample, ..)
            mean, std = np.moveaxis(mean, 0, -1), np.moveaxis(std, 0, -1)
        maps = np.empty((len(mean), 0, shape[1], *mean.shape[1:]), np.complex64)
        return Reconstruction(mean, std, drawn, maps, info)


def _checked(averages: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Averages of a volume (coil, z, y, x); InputError where they do not fit it."""
    given = np.asarray(averages)
    if given.shape != shape[1:] or given.dtype.kind not in "uif":
        raise InputError(
            f"averages are {given.dtype} of shape {given.shape}: expected numbers of shape "
            f"{shape[1:]}"
        )
    return given.astype(np.float32)


def _of_plane(
    averages: NDArray[np.float32], measured: NDArray[np.bool_], axis: int
) -> NDArray[np.float32]:
    """Averages that a sample has once the measured ones along an axis are transformed.

    Its noise is the mean of theirs.
    """
    share = measured & (averages > 0)
    variance = np.sum(1 / np.where(share, averages, 1), axis, where=share)
    count = share.sum(axis)
    return np.where(count, count / np.where(count, variance, 1), 0).astype(np.float32)


def _transformed(kspace: Array, axis: int) -> Array:
    """(coil, z, y, x) to (position, coil, ...), coil by coil to save memory."""
    coils = [np.moveaxis(to_image(coil, axes=(axis - 1,)), axis - 1, 0) for coil in kspace]
    return np.stack(coils, axis=1)
