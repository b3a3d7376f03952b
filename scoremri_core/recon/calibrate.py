"""Coil maps and noise of a slice: decided here for the stream, for arrays and for volumes alike."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.isolation import isolated
from scoremri_core.kspace import KSpace
from scoremri_core.mri.coils.maps import calibration_extent, estimate_coil_maps, too_small
from scoremri_core.mri.fourier import resize
from scoremri_core.mri.sampling import Box
from scoremri_core.recon.memo import Memo
from scoremri_core.recon.noise_model import NoiseModel

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]

MISPLACED = 100.0  # power at the corners of k-space over that at its centre


@dataclass
class Calibrated:
    """A slice with its coil maps and noise, on the smallest grid that holds its samples.

    Attributes
    ----------
    box : Box
        That grid.
    kspace : KSpace
        The slice on it.
    noise : NoiseModel
    maps : complex64, (set, coil, y, x), or None
    problem : str or None
        Why the slice cannot be sampled.
    warning : str or None
        What is wrong with the calibration lines.
    """

    box: Box
    kspace: KSpace
    noise: NoiseModel
    maps: Array | None = None
    problem: str | None = None
    warning: str | None = None


@isolated
def calibrate(
    kspace: KSpace,
    maps: Array | int | str = "auto",
    device: str = "cpu",
    memo: Memo | None = None,
) -> Calibrated:
    """Coil maps and noise of one slice.

    The noise is the given one, or estimated from the edges of k-space. Coil maps are estimated
    under it from the calibration lines. If these lines show more noise under the maps, it is raised
    to that, and the maps are estimated again.

    Parameters
    ----------
    kspace : KSpace
        Of a slice, (coil, y, x).
    maps : complex64, (set, coil, y, x), or 1, 2 or "auto"
        Given maps, or the number of sets to estimate.
    device : str
        Where to estimate them.
    memo : Memo, optional
        Keeps maps for frames with the same calibration and noise.

    Returns
    -------
    Calibrated
        With a `problem` if there is no noise estimate or there are no calibration lines.
    """
    box = Box(kspace.mask)
    inner = _on_box(kspace, box)
    result = Calibrated(box, inner, NoiseModel(inner.noise_covariance, inner.averages))
    if not inner.mask.any():
        result.problem = "k-space holds no measured sample"
        return result
    if _is_misplaced(inner.values):
        result.problem = (
            "the largest values lie at the corners of k-space: expected DC at its centre"
        )
        return result
    try:
        result.noise = NoiseModel.of(inner)
        if isinstance(maps, np.ndarray):
            result.maps = box.maps(maps)
            result.noise.update_from_calibration(inner, result.maps)
            return _logged(result)
        source = kspace if kspace.calibration is None else kspace.calibration
        memo = Memo() if memo is None else memo
        result.warning = too_small(calibration_extent(source.mask))
        result.maps = _maps(source, result, maps, device, memo)
        if result.noise.update_from_calibration(inner, result.maps):
            result.maps = _maps(source, result, maps, device, memo)
            # as if these maps were given
            result.noise.update_from_calibration(inner, result.maps)
    except InputError as error:
        result.problem = str(error)
    return _logged(result)


def _logged(result: Calibrated) -> Calibrated:
    if result.noise.raised_by > 1:
        logger.info(
            "the calibration lines show %.2f times the assumed noise sd", result.noise.raised_by
        )
    return result


def _on_box(kspace: KSpace, box: Box) -> KSpace:
    if box.shape == kspace.mask.shape:
        return kspace
    averages = kspace.averages
    return replace(
        kspace,
        values=box.kspace(kspace.values),
        mask=resize(kspace.mask, box.shape),
        averages=None if averages is None else resize(averages, box.shape),
    )


def _maps(source: KSpace, of: Calibrated, sets: int | str, device: str, memo: Memo) -> Array:
    """Maps of the calibration lines `source` under the present noise, for the grid of a slice."""
    unit = of.kspace.unit
    covariance = np.asarray(of.noise.covariance) * unit**2

    def estimate() -> Array:
        lines = _on_box(source.in_unit(unit), of.box)
        maps = estimate_coil_maps(
            lines.values, sets, of.noise.covariance, device=device, mask=lines.mask
        )
        return np.asarray(maps)

    return memo.get(source, ("maps", of.box.shape, sets, device, covariance.tobytes()), estimate)


def _is_misplaced(values: Array) -> bool:
    """Whether DC seems to be at the corner: k-space as an FFT gives it, not shifted."""
    power = np.sum(np.abs(values) ** 2, axis=0)
    centre = tuple(slice(n // 2 - n // 16, n // 2 + n // 16 + 1) for n in power.shape)
    corners = np.fft.fftshift(power)[centre].sum()
    return bool(corners > MISPLACED * power[centre].sum() and corners > power.sum() / 2)
