"""Completion of calibration regions that are too small for the kernels of ESPIRiT."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.mri.classical import cg_sense
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import resize, to_kspace
from scoremri_core.mri.sampling import calibration_extent

FEW = 16  # samples per axis; smaller regions are completed
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
    if len(kspace) < 2 or min(s.stop - s.start for s in extent) >= FEW:
        return kspace, mask
    centre = tuple(min(GRID, n) for n in mask.shape)
    small, sampled = resize(kspace, centre), resize(mask, centre)
    weights = None if averages is None else resize(averages, centre)
    filled, region = small, _box(calibration_extent(sampled), centre)
    for widths in _growth(calibration_extent(sampled), centre):
        maps = estimate_coil_maps(filled * region, 1, noise_covariance, device=device, mask=region)
        image = cg_sense(small, maps[0], noise_covariance, weights, ITERATIONS, mask=sampled)
        filled = np.where(sampled, small, to_kspace(maps[0] * image)).astype(np.complex64)
        region = _box(widths, centre)
    whole = resize(region, mask.shape)
    return np.asarray(resize(filled * region, mask.shape) * whole, np.complex64), whole


def _growth(extent: tuple[slice, slice], shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the regions of the iterations, each larger than the one before."""
    sides = [_sides(s, n) for s, n in zip(extent, shape, strict=True)]
    last = [side[-1] if side else s for side, s in zip(sides, extent, strict=True)]
    return [
        (y or last[0], x or last[1]) for y, x in zip_longest(*sides)
    ]


def _sides(extent: slice, n: int) -> list[slice]:
    """Grow one side of a region around DC to 24 samples."""
    stops = range(extent.stop - extent.start + STEP, COMPLETE + STEP, STEP)
    sizes = [min(stop, COMPLETE, n) for stop in stops]
    starts = [min(extent.start, n // 2 - size // 2) for size in sizes]
    return [
        slice(start, max(extent.stop, start + size))
        for start, size in zip(starts, sizes, strict=True)
    ]


def _box(extent: tuple[slice, slice], shape: tuple[int, int]) -> NDArray[np.bool_]:
    box = np.zeros(shape, bool)
    box[extent] = True
    return box
