"""A volume with two phase-encode directions, split into two-dimensional problems and joined again.

Along an axis whose samples are complete the transform to the image is exact, and what remains at
each position of that axis is a two-dimensional problem: along the partitions where every line has
all of them, along the readout otherwise.
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
from scoremri_core.recon.result import Info, Reconstruction

logger = logging.getLogger(__name__)

PARTITION, READOUT = 1, 3  # axes of (coil, z, y, x)

NOISE_POSITIONS = 16  # looked at for the noise; the quietest quarter of them counts
CENTRE = 8  # samples on either side of DC where signal is looked for
SIGNAL = 2.0  # power there, over that of the noise, at a position that has signal
LEAST_SIGNAL = 1e-4  # and over the largest power, for data without noise

Array = NDArray[np.complex64]


@dataclass(frozen=True)
class Positions:
    """The positions of a volume along its complete axis.

    Attributes
    ----------
    slices : list of KSpace, (coil, a, b)
        One for each position, with the noise that all share; those without signal have the nearest
        one with signal as their calibration.
    axis : int
        `PARTITION` or `READOUT`.
    scale : float
        Median over the bright positions of the 99th percentile of the zero-filled image.
    virtual_coil : complex64, (coil,)
        Combination of the coils that receives most of the signal. Coil maps leave the phase of an
        image open; with that of this coil it is the same at all positions.
    """

    slices: list[KSpace]
    axis: int
    scale: float
    virtual_coil: Array

    def maps(self, given: Any) -> list[Array]:
        """Maps of each position, (set, coil, a, b), of given ones of the volume.

        Parameters
        ----------
        given : complex array, (coil, z, y, x) or (set, coil, z, y, x)

        Raises
        ------
        InputError
            They do not fit.
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
    """Two-dimensional problems of a volume.

    The noise, if it is not given, is estimated at positions all along the volume, of which the
    quietest count.

    Parameters
    ----------
    volume : KSpace, (coil, z, y, x)
    """
    lines = np.asarray(volume.mask.any(axis=2))
    whole = np.asarray(lines.all(axis=0))[np.asarray(lines.any(axis=0))]
    axis = PARTITION if whole.all() else READOUT
    if axis == READOUT and not volume.mask.any(axis=(0, 1)).all():
        logger.info("volume: samples that its readouts lack are taken as zero")
    values = _transformed(volume.values, axis)
    plane = np.asarray(volume.mask.any(axis=axis - 1))
    averages, fewest = _averages(volume, axis - 1)
    covariance = volume.noise_covariance
    covariance = _noise(values, averages, plane) if covariance is None else covariance / fewest
    slices = [KSpace(own, plane, averages, covariance, None, volume.unit) for own in values]
    sources = slices
    if volume.calibration is not None:
        other = volume.calibration.in_unit(volume.unit)
        block = np.asarray(other.mask.any(axis=axis - 1))
        sources = [KSpace(v, block, unit=volume.unit) for v in _transformed(other.values, axis)]
    nearest = _nearest_with_signal(slices, covariance)
    for i, source in enumerate(nearest):
        if volume.calibration is not None or source != i:
            slices[i] = replace(slices[i], calibration=sources[source])
    high = np.array([np.percentile(root_sum_of_squares(own), 99) for own in values])
    scale = float(np.median(high[high >= high.max() / 2]))
    return Positions(slices, axis, scale, _virtual_coil(sources))


def join(result: Reconstruction, positions: Positions, seed: int) -> Reconstruction:
    """The volume of its reconstructed positions, mean (z, y, x), samples (z, sample, y, x)."""
    info = result.info
    arrays: dict[str, Any] = {"mean": result.mean, "std": result.std}
    arrays |= result.references
    samples = result.samples
    if positions.axis == READOUT:
        arrays = {name: np.moveaxis(image, 0, -1) for name, image in arrays.items()}
        samples = np.moveaxis(samples, 0, -1).swapaxes(0, 1)
    mean, std = arrays.pop("mean"), arrays.pop("std")
    means: dict[str, Any] = {name: (_mean(getattr(info, name)),) for name in PER_POSITION}
    return Reconstruction(
        mean=mean,
        std=std,
        samples=samples,
        maps=np.empty((len(mean), 0, result.maps.shape[2], *mean.shape[1:]), np.complex64),
        info=replace(
            info,
            seed=seed,
            fallback=(_fallback(info),),
            **means,
        ),
        references=arrays,
    )


PER_POSITION = (
    "unsampled_fraction",
    "sigma_n",
    "sigma_thermal",
    "misfit",
    "inconsistent_lines",
    "scale",
)


def _mean(values: Sequence[float]) -> float:
    """Over the positions where it is known."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _fallback(info: Info) -> str | None:
    """Why positions were not sampled, None if all were."""
    failed = [reason for reason in info.fallback if reason]
    if not failed:
        return None
    if len(failed) == len(info.fallback):
        return failed[0]
    return f"{len(failed)} of {len(info.fallback)} positions: {failed[0]}"


def _averages(volume: KSpace, axis: int) -> tuple[NDArray[np.float32] | None, float]:
    """Averages of samples after the measured ones along an axis are transformed, and the fewest.

    The noise of a transformed sample is the mean of theirs.
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
    some = values[:: -(-len(values) // NOISE_POSITIONS)]
    found = sorted(
        (noise.covariance_from_edges(one, averages, plane) for one in some),
        key=lambda c: float(np.trace(c).real),
    )
    return np.asarray(np.mean(found[: -(-len(found) // 4)], axis=0))


def _nearest_with_signal(slices: Sequence[KSpace], covariance: Any) -> NDArray[np.intp]:
    """For each position the nearest one that has signal; itself if none has."""
    whitening = noise.whitening_matrix(covariance)
    plane = slices[0].mask
    centre = tuple(slice(max(0, n // 2 - CENTRE), n // 2 + CENTRE) for n in plane.shape)
    middle = np.stack([one.values[:, centre[0], centre[1]] for one in slices])
    white = noise.whiten(middle, whitening)[:, :, plane[centre]]
    numbers = np.arange(len(slices))
    if not white.size:
        return numbers
    power = np.mean(np.abs(white) ** 2, axis=(1, 2)) / 2  # of noise: 1
    signal = np.flatnonzero(power > max(SIGNAL, LEAST_SIGNAL * power.max(initial=0)))
    if not len(signal):
        return numbers
    return np.asarray(signal[np.abs(numbers[:, None] - signal).argmin(axis=1)])


def _virtual_coil(sources: Sequence[KSpace]) -> Array:
    na, nb = sources[0].mask.shape
    middle = np.stack(
        [s.values[:, na // 2 - 1 : na // 2 + 2, nb // 2 - 1 : nb // 2 + 2] for s in sources], axis=1
    )
    flat = middle.reshape(len(middle), -1)
    principal: Array = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    return principal


def _transformed(kspace: Array, axis: int) -> Array:
    """(coil, z, y, x) to (position, coil, ...), coil by coil to save memory."""
    coils = [np.moveaxis(to_image(coil, axes=(axis - 1,)), axis - 1, 0) for coil in kspace]
    return np.stack(coils, axis=1)
