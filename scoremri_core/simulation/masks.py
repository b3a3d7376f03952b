"""Sampling masks over the phase-encode steps of a Cartesian scan, each with a calibration block.

A mask spans one axis, (ky,), or two, (ky, kz). The acceleration R counts outside the calibration
block, as on a scanner: the true acceleration, samples of the full grid over samples taken, is
lower and is what `Mask.acceleration` reports. Papers often give the true one.
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
    """Encode steps to acquire: those of the imaging pattern and those of the calibration block.

    Attributes
    ----------
    imaging : bool, shape of the encode steps; the accelerated pattern
    calibration : bool, the same shape; the fully sampled block around DC
    factors : acceleration along each axis where the pattern is a lattice, R and ones otherwise
    """

    imaging: Bools
    calibration: Bools
    factors: tuple[float, ...]

    @property
    def sampled(self) -> Bools:
        """Steps that are acquired at all."""
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
    kind : equispaced (a lattice through DC), random (density falling as a square towards the
        edges, Lustig et al. 2007), gaussian (density of a Gaussian), poisson (random, but no two
        steps close together: Poisson-disc, the disc growing towards the edges), uniform (random,
        of one density, as in Jalal et al. 2021)
    shape : number of encode steps, (ky,) or (ky, kz)
    acceleration : R >= 1 outside the calibration block, or `true` that of all steps
    calibration : width N of the fully sampled block c - N//2 ... c - N//2 + N - 1 on each axis
    center : index c of DC on each axis; None takes n//2
    seed : the same seed gives the same mask
    true : take one in R of all steps, the calibration block among them; equispaced steps are then
        those next to the multiples of a spacing that may be no whole number, and are about as many

    Raises
    ------
    InputError
        For an unknown kind, an acceleration or a calibration width out of range, or a calibration
        block that leaves no step to be chosen.
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
        acceleration = outside / _left_over(region, acceleration)
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
    """Calibration lines of so many lines in all: a number, or a share of them such as "8%".

    Raises
    ------
    InputError
        For what is neither.

    Examples
    --------
    >>> calibration_width("8%", 200), calibration_width(24, 200)
    (16, 24)
    """
    text = str(width).strip()
    try:
        found = round(float(text[:-1]) / 100 * lines) if text.endswith("%") else int(text)
    except (ValueError, OverflowError):
        found = -1
    if found < 0:
        raise InputError(f"calibration '{width}': expected a number of lines, or a share like 8%")
    return found


def _left_over(region: Bools, acceleration: float) -> float:
    """How many steps outside the block make one in `acceleration` of all with those inside."""
    block = int(region.sum())
    count = region.size / acceleration - block
    if count < 1:
        raise InputError(
            f"acceleration {acceleration:g}: one in {acceleration:g} of {region.size} steps are "
            f"hardly more than the {block} of the calibration block"
        )
    return count


def calibration_region(shape: Sequence[int], width: int, center: Sequence[int]) -> Bools:
    """Return the block of `width` steps around `center` on each axis, DC at its index width//2.

    Raises
    ------
    InputError
        Where the block does not fit inside the encode steps.
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
    """Split a whole acceleration into one factor an axis, as even as its divisors allow.

    Raises
    ------
    InputError
        For an acceleration that is not a whole number.
    """
    whole = int(acceleration)
    if whole != acceleration:
        raise InputError(
            f"acceleration {acceleration:g}: an equispaced mask takes every R-th line, R whole"
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
    """Distance from DC, 0 at DC to 1 at the farthest step."""
    axes = [(np.arange(n) - c) / n for n, c in zip(shape, center, strict=True)]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    return np.asarray(radius / max(radius.max(), 1e-9))


def _drawn(
    region: Bools, count: int, density: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    """Draw `count` steps outside the calibration block, with probability as `density`."""
    weights = np.where(region, 0.0, density).ravel()
    chosen = np.zeros(region.size, bool)
    if count:
        chosen[rng.choice(region.size, count, replace=False, p=weights / weights.sum())] = True
    return chosen.reshape(region.shape)


def _random(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    return _drawn(region, count, (1.02 - radius) ** 2, rng)


def _uniform(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    return _drawn(region, count, np.ones_like(radius), rng)


def _gaussian(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    return _drawn(region, count, np.exp(-0.5 * (radius / 0.4) ** 2), rng)


def _poisson(
    region: Bools, count: int, radius: npt.NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    """Poisson-disc by dart throwing with a shrinking disc (McCool and Fiume 1992).

    Shrinking reaches the wanted number of steps exactly, on one axis or two.
    """
    from scipy.ndimage import distance_transform_edt  # slower to import than the command line

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
            # farther away no disc reaches, now or when they have shrunk
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
