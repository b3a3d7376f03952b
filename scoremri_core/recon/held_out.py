"""Cross-validation of posterior samples with held-out k-space lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.classical import cg_sense
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.mri.sampling import calibration_extent
from scoremri_core.recon.prepare import Slice

EVERY = 4  # every 4th line outside the calibration region is held out
CENTRE = 8  # without a calibration region, 1/8 of the lines around DC are not held out
MAX_ERROR_RATIO = 1.25  # squared error in held-out lines over that of the classical image

Complex = NDArray[np.complex64]


def worse_than_classical(
    slices: Sequence[Slice], draw: Callable[[list[Slice]], Any]
) -> list[Slice]:
    """Find slices whose samples predict held-out lines worse than a classical image does.

    Samples and the CG-SENSE image are reconstructed again without some of the lines outside the
    calibration region. The criterion is the geometric mean over the held-out lines of the ratio of
    squared errors, to which a single corrupt line contributes little (docs/methods.md, Eq. (15)).

    Parameters
    ----------
    slices : sequence of Slice
        Sampled slices; not modified.
    draw : callable
        Draws samples of a list of slices, in place.

    Returns
    -------
    list of Slice
        Without slices that have too few lines for the comparison.
    """
    held = [_held_out_lines(slice_) for slice_ in slices]
    parts = [_without(slice_, lines) for slice_, lines in zip(slices, held, strict=True)]
    draw([part for part, lines in zip(parts, held, strict=True) if lines.any()])
    return [
        slice_
        for slice_, part, lines in zip(slices, parts, held, strict=True)
        if lines.any()
        and part.fallback is None
        and _error_ratio(slice_, part, lines) > MAX_ERROR_RATIO
    ]


def residual_power(slice_: Slice, image: Complex) -> NDArray[np.float64]:
    """Squared residual of the measured samples, summed over whitened coils.

    Parameters
    ----------
    slice_ : Slice
    image : complex64 array, (set, y, x)

    Returns
    -------
    float64 array, (y, x)
        Zero where not measured.
    """
    rest = to_kspace((np.asarray(slice_.maps) * image[:, None]).sum(0)) - slice_.kspace.values
    power: NDArray[np.float64] = np.sum(np.abs(slice_.noise.white(rest)) ** 2, axis=0)
    return power * slice_.kspace.mask


def classical(slice_: Slice) -> Complex:
    """Reconstruct a slice by CG-SENSE under the initial noise covariance.

    Parameters
    ----------
    slice_ : Slice

    Returns
    -------
    complex64 array, (set, y, x)
    """
    kspace, noise = slice_.kspace, slice_.noise
    maps = np.asarray(slice_.maps)
    return cg_sense(kspace.values, maps, noise.initial_covariance, noise.averages, mask=kspace.mask)


def _without(slice_: Slice, lines: NDArray[np.bool_]) -> Slice:
    kspace = slice_.kspace
    kspace = replace(kspace, values=kspace.values * ~lines, mask=kspace.mask & ~lines)
    return replace(slice_, kspace=kspace)


def _held_out_lines(slice_: Slice) -> NDArray[np.bool_]:
    """Choose the held-out lines, (y, 1)."""
    mask = slice_.kspace.mask
    ny = len(mask)
    try:
        centre = calibration_extent(mask)[0]
    except CalibrationError:
        centre = slice(ny // 2 - ny // (2 * CENTRE), ny // 2 + ny // (2 * CENTRE) + 1)
    lines = np.flatnonzero(mask.any(1))
    outside = lines[(lines < centre.start) | (lines >= centre.stop)]
    held = np.zeros((ny, 1), bool)
    held[outside[EVERY // 2 :: EVERY]] = True
    return held


def _error_ratio(slice_: Slice, part: Slice, held: NDArray[np.bool_]) -> float:
    """Geometric mean over held-out lines of squared error of samples over classical image."""
    ours, theirs = (
        residual_power(slice_, image).sum(1)[held[:, 0]]
        for image in (np.asarray(part.mean), classical(part))
    )
    return float(np.exp(np.mean(np.log(ours / theirs))))
