"""Coil maps and noise of a slice, for the stream, arrays and volumes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.isolation import isolated
from scoremri_core.kspace import KSpace
from scoremri_core.mri.coils.completion import calibration_warning, complete_calibration
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import resize
from scoremri_core.mri.sampling import Box
from scoremri_core.recon.memo import Memo
from scoremri_core.recon.noise_model import NoiseModel

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]

MISPLACED = 100.0  # power at the corners of k-space over that at its centre, if DC is not centred


@dataclass
class Calibrated:
    """A slice with its coil maps and noise, on the smallest grid that holds its samples.

    Attributes
    ----------
    box : Box
        The grid.
    kspace : KSpace
        The slice on the grid.
    noise : NoiseModel
    maps : complex64 array, (set, coil, y, x), or None
    problem : str or None
        Why the slice cannot be sampled.
    warning : str or None
        Limitation of the calibration lines.
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
    """Estimate coil maps and noise of one slice.

    The noise is given or estimated from the edges of k-space. If the residual of the calibration
    lines under the coil maps exceeds it, it is raised and the maps are estimated again.

    Parameters
    ----------
    kspace : KSpace, (coil, y, x)
    maps : complex64 array, (set, coil, y, x), or 1, 2 or "auto"
        Coil maps, or the number of sets to estimate.
    device : str
        "cpu", "cuda" or "cuda:N", for the coil maps.
    memo : Memo, optional
        Cache of coil maps of frames with the same calibration and noise.

    Returns
    -------
    Calibrated
        With a `problem` if the noise cannot be estimated or there are no calibration lines.
    """
    box = Box(kspace.mask)
    inner = _on_box(kspace, box)
    result = Calibrated(box, inner, NoiseModel(inner.noise_covariance, inner.averages))
    if not inner.mask.any():
        result.problem = "k-space holds no measured samples"
        return result
    if _is_misplaced(inner.values):
        result.problem = "the largest values lie at the corners of k-space: expected DC at centre"
        return result
    try:
        result.noise = NoiseModel.of(inner)
        if isinstance(maps, np.ndarray):
            result.maps = box.maps(maps)
            result.noise.update_from_calibration(inner, result.maps)
            return _logged(result)
        memo = Memo() if memo is None else memo
        source = kspace if kspace.calibration is None else kspace.calibration
        result.warning = calibration_warning(source.mask)
        result.maps = _maps(kspace, result, maps, device, memo)
        if result.noise.update_from_calibration(inner, result.maps):
            result.maps = _maps(kspace, result, maps, device, memo)
            result.noise.update_from_calibration(inner, result.maps)
    except InputError as error:
        result.problem = str(error)
    return _logged(result)


def _logged(result: Calibrated) -> Calibrated:
    if result.noise.raised_by > 1:
        logger.info(
            "residual of the calibration lines is %.2f times the noise sd; noise raised",
            result.noise.raised_by,
        )
    return result


def _on_box(kspace: KSpace, box: Box) -> KSpace:
    """Crop k-space to the grid of a box."""
    if box.shape == kspace.mask.shape:
        return kspace
    averages = kspace.averages
    return replace(
        kspace,
        values=box.kspace(kspace.values),
        mask=resize(kspace.mask, box.shape),
        averages=None if averages is None else resize(averages, box.shape),
    )


def _maps(kspace: KSpace, of: Calibrated, sets: int | str, device: str, memo: Memo) -> Array:
    """Estimate maps on the grid of `of` under its noise.

    From separate calibration lines if there are any, which frames share; else from those of the
    frame, completed with its other lines if they are few.
    """
    source = kspace if kspace.calibration is None else kspace.calibration
    unit = of.kspace.unit
    covariance = np.asarray(of.noise.covariance) * unit**2

    def estimate() -> Array:
        lines = _on_box(source.in_unit(unit), of.box)
        values, mask, noise = lines.values, lines.mask, of.noise.covariance
        if source is kspace:
            values, mask = complete_calibration(values, mask, noise, lines.averages, device)
        return np.asarray(estimate_coil_maps(values, sets, noise, device=device, mask=mask))

    return memo.get(source, ("maps", of.box.shape, sets, device, covariance.tobytes()), estimate)


def _is_misplaced(values: Array) -> bool:
    """Whether DC seems to be at index 0, as in the output of an FFT without shift."""
    power = np.sum(np.abs(values) ** 2, axis=0)
    centre = tuple(slice(n // 2 - n // 16, n // 2 + n // 16 + 1) for n in power.shape)
    corners = np.fft.fftshift(power)[centre].sum()
    return bool(corners > MISPLACED * power[centre].sum() and corners > power.sum() / 2)
