"""Volumes with two phase-encode directions: split into two-dimensional problems and join them.

An inverse FFT along a fully sampled axis decouples the positions on it. This axis is the partition
direction if every line has all partitions, else the readout.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace, as_complex
from scoremri_core.mri.classical import root_sum_of_squares
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise import covariance as noise
from scoremri_core.recon.result import PER_SLICE, Info, Reconstruction

logger = logging.getLogger(__name__)

PARTITION, READOUT = 1, 3  # axes of (coil, z, y, x)

NOISE_POSITIONS = 16  # where noise is estimated; the quietest quarter is used
CENTRE = 8  # samples on either side of DC in which signal is detected
SIGNAL = 2.0  # their power over that of the noise at a position with signal
MIN_SIGNAL = 1e-4  # their power over that of the brightest position, for noise-free data

Array = NDArray[np.complex64]


@dataclass(frozen=True)
class Positions:
    """Positions of a volume along its fully sampled axis.

    Attributes
    ----------
    slices : list of KSpace, (coil, a, b)
        One per position, with a common noise covariance. Positions without signal are calibrated
        on the nearest one with signal.
    axis : int
        `PARTITION` or `READOUT`.
    scale : float
        Median over bright positions of the 99th percentile of the zero-filled image.
    virtual_coil : complex64 array, (coil,)
        Coil combination with most of the signal, the common phase reference of all positions.
    """

    slices: list[KSpace]
    axis: int
    scale: float
    virtual_coil: Array

    def maps(self, given: Any) -> list[Array]:
        """Split coil maps of the volume by position.

        Parameters
        ----------
        given : complex array, (coil, z, y, x) or (set, coil, z, y, x)

        Returns
        -------
        list of complex64 array, (set, coil, a, b)

        Raises
        ------
        InputError
            Wrong shape, or values that are not finite or not complex.
        """
        coils, *plane = self.slices[0].values.shape
        grid = list(plane)
        grid.insert(self.axis - 1, len(self.slices))
        shape = np.shape(given)
        if len(shape) not in (4, 5) or shape[-4:] != (coils, *grid):
            raise InputError(
                f"maps has shape {shape}: expected (coil, z, y, x) or (set, coil, z, y, x), "
                f"{(coils, *grid)} per set"
            )
        maps = as_complex("maps", given).astype(np.complex64)
        if not np.isfinite(maps).all():
            raise InputError("maps holds values that are not finite")
        sets = maps if maps.ndim == 5 else maps[None]
        return list(np.ascontiguousarray(np.moveaxis(sets, self.axis + 1, 0)))


def split(volume: KSpace) -> Positions:
    """Split a volume into two-dimensional problems.

    Unless given, the noise is estimated from the quietest of positions spread over the volume.

    Parameters
    ----------
    volume : KSpace, (coil, z, y, x)

    Returns
    -------
    Positions
    """
    lines = np.asarray(volume.mask.any(axis=2))
    whole = np.asarray(lines.all(axis=0))[np.asarray(lines.any(axis=0))]
    axis = PARTITION if whole.all() else READOUT
    if axis == READOUT and not volume.mask.any(axis=(0, 1)).all():
        logger.info("partial readouts of the volume are zero-filled")
    values = _transformed(volume.values, axis)
    plane = np.asarray(volume.mask.any(axis=axis - 1))
    averages, fewest = _averages(volume, axis - 1)
    covariance = volume.noise_covariance
    covariance = _noise(values, averages, plane) if covariance is None else covariance / fewest
    slices = [KSpace(v, plane, averages, covariance, None, volume.unit) for v in values]
    sources = slices
    if volume.calibration is not None:
        other = volume.calibration.in_unit(volume.unit)
        block = np.asarray(other.mask.any(axis=axis - 1))
        sources = [KSpace(v, block, unit=volume.unit) for v in _transformed(other.values, axis)]
    nearest = _nearest_with_signal(slices, covariance)
    for i, source in enumerate(nearest):
        if volume.calibration is not None or source != i:
            slices[i] = replace(slices[i], calibration=sources[source])
    high = np.array([np.percentile(root_sum_of_squares(v), 99) for v in values])
    scale = float(np.median(high[high >= high.max() / 2]))
    return Positions(slices, axis, scale, _virtual_coil(sources))


def join(result: Reconstruction, positions: Positions, seed: int) -> Reconstruction:
    """Join reconstructed positions into a volume.

    Parameters
    ----------
    result : Reconstruction
        With one slice per position.
    positions : Positions
    seed : int
        Seed of the volume.

    Returns
    -------
    Reconstruction
        With mean and std (z, y, x), samples (z, sample, y, x), and no coil maps.
    """
    info = result.info
    arrays: dict[str, Any] = {"mean": result.mean, "std": result.std}
    arrays |= result.references
    samples = result.samples
    if positions.axis == READOUT:
        arrays = {name: np.moveaxis(image, 0, -1) for name, image in arrays.items()}
        samples = np.moveaxis(samples, 0, -1).swapaxes(0, 1)
    mean, std = arrays.pop("mean"), arrays.pop("std")
    per_slice: dict[str, Any] = {
        name: (_mean(getattr(info, name)),) for name in PER_SLICE if name != "fallback"
    }
    return Reconstruction(
        mean=mean,
        std=std,
        samples=samples,
        maps=np.empty((len(mean), 0, result.maps.shape[2], *mean.shape[1:]), np.complex64),
        info=replace(info, seed=seed, fallback=(_fallback(info),), **per_slice),
        references=arrays,
    )


def _mean(values: Sequence[float]) -> float:
    """Mean of the finite values; NaN if there are none."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _fallback(info: Info) -> str | None:
    """Summarise the fallbacks of all positions; None if there are none."""
    failed = [reason for reason in info.fallback if reason]
    if not failed:
        return None
    if len(failed) == len(info.fallback):
        return failed[0]
    return f"{len(failed)} of {len(info.fallback)} positions: {failed[0]}"


def _averages(volume: KSpace, axis: int) -> tuple[NDArray[np.float32] | None, float]:
    """Averages after the FFT along an axis, relative to the fewest, and the fewest.

    The noise variance of a transformed sample is the mean over the samples measured on the axis.
    """
    if volume.averages is None:
        return None, 1.0
    share = volume.mask & (volume.averages > 0)
    variance = np.sum(1 / np.where(share, volume.averages, 1), axis, where=share)
    count = share.sum(axis)
    plane = np.where(count, count / np.where(count, variance, 1), 0).astype(np.float32)
    fewest = float(plane[plane > 0].min(initial=np.inf))
    if not (plane > fewest).any():
        return None, 1.0 if np.isinf(fewest) else fewest
    return plane / np.float32(fewest), fewest


def _noise(
    values: Array, averages: NDArray[np.float32] | None, plane: NDArray[np.bool_]
) -> NDArray[np.complex128]:
    """Mean noise covariance of the quietest quarter of some positions."""
    positions = values[:: -(-len(values) // NOISE_POSITIONS)]
    covariances = sorted(
        (noise.covariance_from_edges(v, averages, plane) for v in positions),
        key=lambda c: float(np.trace(c).real),
    )
    return np.asarray(np.mean(covariances[: -(-len(covariances) // 4)], axis=0))


def _nearest_with_signal(slices: Sequence[KSpace], covariance: Any) -> NDArray[np.intp]:
    """Index of the nearest position with signal, for each position; itself if none has signal."""
    whitening = noise.whitening_matrix(covariance)
    plane = slices[0].mask
    centre = tuple(slice(max(0, n // 2 - CENTRE), n // 2 + CENTRE) for n in plane.shape)
    middle = np.stack([one.values[:, centre[0], centre[1]] for one in slices])
    white = noise.whiten(middle, whitening)[:, :, plane[centre]]
    numbers = np.arange(len(slices))
    if not white.size:
        return numbers
    power = np.mean(np.abs(white) ** 2, axis=(1, 2)) / 2  # 1 for noise
    signal = np.flatnonzero(power > max(SIGNAL, MIN_SIGNAL * power.max(initial=0)))
    if not len(signal):
        return numbers
    return np.asarray(signal[np.abs(numbers[:, None] - signal).argmin(axis=1)])


def _virtual_coil(sources: Sequence[KSpace]) -> Array:
    """Principal component of the samples around DC."""
    na, nb = sources[0].mask.shape
    middle = np.stack(
        [s.values[:, na // 2 - 1 : na // 2 + 2, nb // 2 - 1 : nb // 2 + 2] for s in sources], axis=1
    )
    flat = middle.reshape(len(middle), -1)
    principal: Array = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    return principal


def _transformed(kspace: Array, axis: int) -> Array:
    """Transform (coil, z, y, x) to (position, coil, ...), coil by coil to save memory."""
    coils = [np.moveaxis(to_image(coil, axes=(axis - 1,)), axis - 1, 0) for coil in kspace]
    return np.stack(coils, axis=1)
