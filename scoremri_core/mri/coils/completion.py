"""Completion of calibration regions that are too small for the kernels of ESPIRiT."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.mri.classical import cg_sense
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import resize, to_kspace
from scoremri_core.mri.sampling import calibration_extent

FEW = 16  # samples per axis; smaller regions are completed
UNCERTAIN = 8  # samples per axis; maps of smaller regions may err by more than the noise
COMPLETE = 24  # samples per axis of a completed region
STEP = 4  # samples by which the region grows per iteration
GRID = 64  # samples per axis around DC that take part
ITERATIONS = 30  # of CG-SENSE

Array = NDArray[np.complex64]


def complete_calibration(
    kspace: Array,
    mask: NDArray[np.bool_],
    noise_covariance: Any,
    averages: NDArray[np.float32] | None = None,
    device: str = "cpu",
) -> tuple[Array, NDArray[np.bool_]]:
    """Complete a calibration region of fewer than 16 lines to 24 lines.

    By turns, coil maps are estimated from the region by ESPIRiT, and the samples around it that
    were not measured are filled with those of the CG-SENSE image under these maps. The region
    grows by 4 lines, and the kernels with it, so that samples far from the measured block, which
    the first maps predict badly, are used last.

    Parameters
    ----------
    kspace : complex64 array, (coil, y, x)
        Centred, undersampled, zero where not sampled.
    mask : bool array, (y, x)
        Measured samples.
    noise_covariance : complex array, (coil, coil)
        E[n n^H] of a sample with one average.
    averages : float32 array, (y, x), optional
        Number of averages of each sample. Default: 1.
    device : str, optional
        "cpu", "cuda" or "cuda:N", for the coil maps.

    Returns
    -------
    kspace : complex64 array, (coil, y, x)
        With the region completed; the input if it has 16 or more lines.
    mask : bool array, (y, x)
        Samples of `kspace` to calibrate on.

    Raises
    ------
    CalibrationError
        No calibration region around the centre of k-space.
    """
    extent = calibration_extent(mask)
    if len(kspace) < 2 or not _is_below(FEW, extent, mask.shape):
        return kspace, mask
    centre = tuple(min(GRID, n) for n in mask.shape)
    small, sampled = resize(kspace, centre), resize(mask, centre)
    weights = None if averages is None else resize(averages, centre)
    extent = calibration_extent(sampled)
    filled, known = small, _box(extent, centre) & sampled  # samples may be lost
    for larger in _growth(extent, centre):
        maps = estimate_coil_maps(filled * known, 1, noise_covariance, device=device, mask=known)
        image = cg_sense(small, maps[0], noise_covariance, weights, ITERATIONS, mask=sampled)
        filled = np.where(sampled, small, to_kspace(maps[0] * image)).astype(np.complex64)
        known = _box(larger, centre)
    return np.ascontiguousarray(resize(filled * known, mask.shape)), resize(known, mask.shape)


def calibration_warning(mask: NDArray[np.bool_]) -> str | None:
    """Describe a calibration region that is too small for accurate coil maps.

    Parameters
    ----------
    mask : bool array, (y, x)
        Measured samples.

    Returns
    -------
    str or None
    """
    extent = calibration_extent(mask)
    if not _is_below(UNCERTAIN, extent, mask.shape):
        return None
    ny, nx = (s.stop - s.start for s in extent)
    return (
        f"{ny} x {nx} calibration samples are few: the standard deviation does not include the "
        "error of the coil maps"
    )


def _is_below(least: int, extent: tuple[slice, slice], shape: tuple[int, int]) -> bool:
    """Whether a side of the region is shorter than `least` and not the whole axis."""
    return any(s.stop - s.start < min(least, n) for s, n in zip(extent, shape, strict=True))


def _growth(extent: tuple[slice, slice], shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Grow a region around DC to 24 samples per axis; return the region after each step."""
    regions = []
    while any(s.stop - s.start < min(COMPLETE, n) for s, n in zip(extent, shape, strict=True)):
        y, x = (_larger(s, n) for s, n in zip(extent, shape, strict=True))
        extent = y, x
        regions.append(extent)
    return regions


def _larger(side: slice, n: int) -> slice:
    size = min(side.stop - side.start + STEP, COMPLETE, n)
    start = min(side.start, n // 2 - size // 2)
    return slice(start, max(side.stop, start + size))


def _box(extent: tuple[slice, slice], shape: tuple[int, int]) -> NDArray[np.bool_]:
    box = np.zeros(shape, bool)
    box[extent] = True
    return box
