"""Lines that are held back from samples and from the classical image, to see which knows better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.classical import cg_sense
from scoremri_core.mri.coils.maps import calibration_extent
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.recon.prepare import Slice

EVERY = 4  # one line in so many is held back
CENTRE = 8  # share of the lines about DC that are not, where there is no calibration region: 1 in 8
WORSE = 1.25  # square error in held lines, over that of the classical image

Complex = NDArray[np.complex64]


def worse_than_classical(
    slices: Sequence[Slice], draw: Callable[[list[Slice]], Any]
) -> list[Slice]:
    """Those whose samples predict lines that they have not seen worse than a classical image.

    Both are made again without some of the lines beyond the calibration region, and compared in
    each of these by the square of what they miss; the geometric mean of the ratios counts, so that
    a line that is corrupt itself decides nothing.  Without enough lines the samples are kept.

    Parameters
    ----------
    slices : prepared; they stay as they are.
    draw : draws samples of slices.
    """
    held = [_held_lines(own) for own in slices]
    parts = [_without(own, lines) for own, lines in zip(slices, held, strict=True)]
    draw([part for part, lines in zip(parts, held, strict=True) if lines.any()])
    return [
        own
        for own, part, lines in zip(slices, parts, held, strict=True)
        if lines.any() and part.fallback is None and _ratio(own, part, lines) > WORSE
    ]


def missed(own: Slice, image: Complex) -> NDArray[np.float64]:
    """What an image (set, y, x) leaves of the measured samples, |.|^2 in unit noise, (y, x)."""
    rest = to_kspace((np.asarray(own.maps) * image[:, None]).sum(0)) - own.kspace.values
    power: NDArray[np.float64] = np.sum(np.abs(own.noise.white(rest)) ** 2, axis=0)
    return power * own.kspace.mask


def classical(own: Slice) -> Complex:
    """CG-SENSE (set, y, x) with the noise that was believed before any sampling."""
    kspace, noise = own.kspace, own.noise
    maps = np.asarray(own.maps)
    return cg_sense(kspace.values, maps, noise.initial_covariance, noise.averages, mask=kspace.mask)


def _without(own: Slice, lines: NDArray[np.bool_]) -> Slice:
    kspace = replace(own.kspace, values=own.kspace.values * ~lines, mask=own.kspace.mask & ~lines)
    return replace(own, kspace=kspace)


def _held_lines(own: Slice) -> NDArray[np.bool_]:
    """True in the lines that are held back, (y, 1)."""
    mask = own.kspace.mask
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


def _ratio(own: Slice, part: Slice, held: NDArray[np.bool_]) -> float:
    """Geometric mean over the held lines of the samples' square error over the classical one's."""
    ours, theirs = (
        missed(own, image).sum(1)[held[:, 0]] for image in (np.asarray(part.mean), classical(part))
    )
    return float(np.exp(np.mean(np.log(ours / theirs))))
