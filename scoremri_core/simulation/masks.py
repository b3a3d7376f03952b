"""Cartesian sampling masks over the phase-encode steps, with a calibration block.

A mask has one axis, (ky,), or two, (ky, kz). The acceleration R refers to the steps outside of the
calibration block, as on a scanner. The true acceleration of all steps, `Mask.acceleration`, is
lower; papers often give that one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError

Bools = npt.NDArray[np.bool_]

CALIBRATION_MODES = ("embedded", "separate", "external")


@dataclass(frozen=True)
class Mask:
    """Encode steps to acquire.

    Attributes
    ----------
    imaging : bool array, (ky,) or (ky, kz)
        Accelerated pattern.
    calibration : bool array, like `imaging`
        Fully sampled block around DC.
    factors : tuple of float
        Acceleration per axis of a lattice; otherwise R and ones.
    """

    imaging: Bools
    calibration: Bools
    factors: tuple[float, ...]

    @property
    def sampled(self) -> Bools:
        """Steps of either pattern."""
        return self.imaging | self.calibration

    @property
    def acceleration(self) -> float:
        """True acceleration: steps of the full grid over steps acquired."""
        return self.sampled.size / int(self.sampled.sum())


def make_mask(
    kind: str,
    shape: Sequence[int],
    acceleration: float,
    calibration: int = 0,
    *,
    center: Sequence[int] | None = None,
    seed: int = 0,
    true: bool = False,
) -> Mask:
    """Choose the encode steps to acquire.

    Parameters
    ----------
    kind : {"equispaced", "random", "gaussian", "poisson", "uniform"}
        Lattice through DC; random with density (1 - r)^2 [1]_; random with Gaussian density;
        variable-density Poisson disc; random with uniform density [2]_.
    shape : sequence of int
        Number of encode steps, (ky,) or (ky, kz).
    acceleration : float
        R >= 1, outside of the calibration block.
    calibration : int, optional
        Width N of the fully sampled block c - N//2 ... c - N//2 + N - 1 on each axis.
    center : sequence of int, optional
        Index c of DC on each axis. Default: n//2.
    seed : int, optional
        Of the random masks.
    true : bool, optional
        R is the true acceleration of all steps, including the calibration block. Equispaced steps
        are then the nearest to multiples of a fractional spacing, and R is approximate.

    Returns
    -------
    Mask

    Raises
    ------
    InputError
        Unknown kind, acceleration or calibration width out of range, or a calibration block that
        exceeds the true acceleration.

    References
    ----------
    .. [1] Lustig M et al. Sparse MRI. Magn Reson Med 58:1182-1195 (2007).
    .. [2] Jalal A et al. Robust compressed sensing MRI with deep generative priors. NeurIPS (2021).
    """
    shape = tuple(int(n) for n in shape)
    center = tuple(n // 2 for n in shape) if center is None else tuple(int(c) for c in center)
    if kind not in KINDS:
        raise InputError(f"mask '{kind}': expected one of {', '.join(KINDS)}")
    if not 1 <= acceleration <= max(shape):
        raise InputError(f"acceleration {acceleration:g}: expected 1 to {max(shape)}")
    region = calibration_region(shape, calibration, center)
    outside = int((~region).sum())
    if true and acceleration > 1:
        acceleration = outside / _count_outside(region, acceleration)
    if kind == "equispaced":
        factors: tuple[float, ...] = (
            (acceleration ** (1 / len(shape)),) * len(shape)
            if true
            else lattice_factors(acceleration, len(shape))
        )
        return Mask(_lattice(shape, factors, center), region, factors)
    count = round(outside / acceleration)
    imaging = DRAWS[kind](region, count, _radius(shape, center), np.random.default_rng(seed))
    return Mask(imaging | region, region, (acceleration, *(1.0 for _ in shape[1:])))


def calibration_width(width: int | str, lines: int) -> int:
    """Convert a calibration width to a number of lines.

    Parameters
    ----------
    width : int or str
        Number of lines, or a share of them such as "8%".
    lines : int
        All lines.

    Returns
    -------
    int

    Raises
    ------
    InputError
        Invalid width.

    Examples
    --------
    >>> calibration_width("8%", 200), calibration_width(24, 200)
    (16, 24)
    """
    text = str(width).strip()
    try:
        count = round(float(text[:-1]) / 100 * lines) if text.endswith("%") else int(text)
    except (ValueError, OverflowError):
        count = -1
    if count < 0:
        raise InputError(f"calibration '{width}': expected a number of lines, or a share like 8%")
    return count


def _count_outside(region: Bools, acceleration: float) -> float:
    """Return the number of steps outside of the block for a true acceleration."""
    block = int(region.sum())
    count = region.size / acceleration - block
    if count < 1:
        raise InputError(
            f"acceleration {acceleration:g}: 1/{acceleration:g} of {region.size} steps is less "
            f"than the calibration block of {block} and one more step"
        )
    return count


def calibration_region(shape: Sequence[int], width: int, center: Sequence[int]) -> Bools:
    """Return the calibration block around DC.

    Parameters
    ----------
    shape : sequence of int
        Number of encode steps per axis.
    width : int
        Of the block on each axis; DC is at its index width//2.
    center : sequence of int
        Index of DC on each axis.

    Returns
    -------
    bool array, `shape`

    Raises
    ------
    InputError
        The block exceeds the encode steps.
    """
    region = np.zeros(tuple(shape), bool)
    starts = [c - width // 2 for c in center]
    if width < 0 or any(a < 0 or a + width > n for a, n in zip(starts, shape, strict=True)):
        raise InputError(
            f"calibration {width}: expected 0 or more lines that fit around the k-space centre "
            f"(line {', '.join(map(str, center))} of {', '.join(map(str, shape))})"
        )
    region[tuple(slice(a, a + width) for a in starts)] = True
    return region


def lattice_factors(acceleration: float, axes: int) -> tuple[int, ...]:
    """Split an acceleration into factors per axis, as equal as its divisors allow.

    Parameters
    ----------
    acceleration : float
    axes : {1, 2}

    Returns
    -------
    tuple of int

    Raises
    ------
    InputError
        The acceleration is not a whole number.
    """
    whole = int(acceleration)
    if whole != acceleration:
        raise InputError(
            f"acceleration {acceleration:g}: expected a whole number for an equispaced mask"
        )
    if axes == 1:
        return (whole,)
    second = max(d for d in range(1, math.isqrt(whole) + 1) if whole % d == 0)
    return whole // second, second


def _lattice(shape: Sequence[int], factors: Sequence[float], center: Sequence[int]) -> Bools:
    on_axis = [
        np.isin(np.arange(n) - c, np.rint(np.arange(-n, n + 1) * r))
        for n, r, c in zip(shape, factors, center, strict=True)
    ]
    lattice: Bools = np.logical_and.reduce(np.meshgrid(*on_axis, indexing="ij"))
    return lattice


def _radius(shape: Sequence[int], center: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the distance from DC, normalised to 1 at the farthest step."""
    axes = [(np.arange(n) - c) / n for n, c in zip(shape, center, strict=True)]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    return np.asarray(radius / max(radius.max(), 1e-9))


def _draw(
    region: Bools, count: int, density: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    """Draw `count` steps outside of the calibration block with a probability density."""
    weights = np.where(region, 0.0, density).ravel()
    chosen = np.zeros(region.size, bool)
    if count:
        chosen[rng.choice(region.size, count, replace=False, p=weights / weights.sum())] = True
    return chosen.reshape(region.shape)


def _random(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    return _draw(region, count, (1.02 - radius) ** 2, rng)


def _uniform(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    return _draw(region, count, np.ones_like(radius), rng)


def _gaussian(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    return _draw(region, count, np.exp(-0.5 * (radius / 0.4) ** 2), rng)


def _poisson(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    """Draw a Poisson-disc pattern by dart throwing with a shrinking disc.

    Shrinking gives the exact number of steps, on one or two axes (McCool M, Fiume E. Hierarchical
    Poisson disk sampling distributions. Graphics Interface 94-105 (1992)).
    """
    from scipy.ndimage import distance_transform_edt  # slow import

    chosen = np.zeros(region.shape, bool)
    distance = np.full(region.shape, np.inf)
    if region.any():
        distance = np.asarray(distance_transform_edt(~region))
    scale = 2.0 * (region.size / max(count, 1)) ** (1 / region.ndim)
    while (missing := count - int(chosen.sum())) > 0:
        disc = np.maximum(scale * (1 + radius), 1)
        reach = math.ceil(disc.max())
        for step in rng.permutation(np.argwhere(distance >= disc)):
            here = tuple(step)
            if distance[here] < disc[here]:
                continue
            chosen[here] = True
            # no disc reaches farther, as discs only shrink
            near = tuple(slice(max(0, i - reach), i + reach + 1) for i in here)
            axes = np.ogrid[
                tuple(
                    slice(s.start, min(s.stop, n)) for s, n in zip(near, region.shape, strict=True)
                )
            ]
            away = np.sqrt(sum((a - i) ** 2 for a, i in zip(axes, here, strict=True)))
            np.minimum(distance[near], away, out=distance[near])
            missing -= 1
            if not missing:
                break
        scale *= 0.9
    return chosen


DRAWS: dict[str, Callable[..., Bools]] = {
    "random": _random,
    "gaussian": _gaussian,
    "poisson": _poisson,
    "uniform": _uniform,
}
KINDS = ("equispaced", *DRAWS)
