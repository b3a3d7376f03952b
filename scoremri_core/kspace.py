"""Measured k-space, checked once where it is made: the type that reconstruction steps take."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.noise.covariance import covariance_from_edges, noise_sigma, whitening_matrix
from scoremri_core.mri.sampling import measured

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]
Mask = NDArray[np.bool_]

MAX_COILS = 128  # of present-day arrays; a longer axis is not the coil axis
DISAGREEMENT = 2.0  # ratio of the given noise sd to that of the edges of k-space that is reported
SMALLEST_UNIT, LARGEST_UNIT = 2.0**-105, 2.0**110  # whose images float32 can hold


@dataclass(frozen=True, eq=False)
class KSpace:
    """Measured k-space of one slice or volume.

    `of`, `stack` and `volume` check their arguments. The constructor does not: it is for steps that
    transform k-space which was checked before.

    Attributes
    ----------
    values : complex64, (coil, y, x) or (coil, z, y, x)
        Centred k-space, zero where nothing was measured. Its largest component is between 1 and 2,
        so that no square leaves the range of float32.
    mask : bool, (y, x) or (z, y, x)
        Which samples were measured.
    averages : float32, shape of `mask`, or None
        Number of averages of each sample over the smallest such number, 0 where not measured; None
        where all are equal.
    noise_covariance : complex128, (coil, coil), or None
        E[n n^H] of the samples with the fewest averages, in units of `values`; None if unknown.
    calibration : KSpace or None
        Calibration lines on the same matrix; None if `values` holds them.
    unit : float
        Power of two; `values * unit` are the values as they were measured.
    """

    values: Array
    mask: Mask
    averages: NDArray[np.float32] | None = None
    noise_covariance: NDArray[np.complex128] | None = None
    calibration: KSpace | None = None
    unit: float = 1.0

    @classmethod
    def of(
        cls,
        values: Any,
        *,
        mask: Any = None,
        averages: Any = None,
        calibration: KSpace | None = None,
        noise_covariance: Any = None,
    ) -> KSpace:
        """K-space of one slice or volume from arrays.

        A sample that is not finite in one of the coils counts as not measured; in a volume, its
        whole readout does.

        Parameters
        ----------
        values : complex array, (coil, y, x) or (coil, z, y, x)
            Centred k-space.
        mask : bool array, (y, x) or (z, y, x), optional
            Which samples were measured; by default those that are not zero in every coil.
        averages : array, shape of `mask`, optional
            Number of averages of each sample; by default 1.
        calibration : KSpace, optional
            Calibration lines on the same matrix.
        noise_covariance : complex array, (coil, coil), optional
            E[n n^H] of the noise of a sample that was averaged once.

        Raises
        ------
        InputError
            A wrong shape or type; a covariance that is none; averages that are not positive.
        """
        given = as_complex("kspace", values)
        if given.ndim not in (3, 4) or 0 in given.shape:
            raise InputError(
                f"kspace has shape {given.shape}: expected (coil, y, x) or (coil, z, y, x)"
            )
        unit = unit_of(given)
        given, sampled = _finite(given, measured(given, mask))
        array = scaled(given, unit)
        counts = None if averages is None else _counts(averages, sampled)
        covariance = _covariance(noise_covariance, len(array), unit)
        counts, covariance = _relative(counts, covariance)
        kspace = cls(array, sampled, counts, covariance, calibration, unit)
        if not kspace.is_volume:
            kspace._compare_noise()
        return kspace

    @classmethod
    def stack(
        cls,
        values: Any,
        *,
        mask: Any = None,
        averages: Any = None,
        calibration: Any = None,
        noise_covariance: Any = None,
    ) -> list[KSpace]:
        """K-space of each slice of a stack.

        Parameters
        ----------
        values : complex array, (coil, y, x) or (slice, coil, y, x)
        mask : bool array, (y,), (y, x) or (slice, y, x), optional
        averages : array, shape as `mask`, optional
        calibration : complex array, (coil, y, x) or (slice, coil, y, x), optional
        noise_covariance : complex array, (coil, coil), optional

        Raises
        ------
        InputError
            As `of`.
        """
        shape = np.shape(values)
        if len(shape) not in (3, 4) or 0 in shape:
            raise InputError(
                f"kspace has shape {shape}: expected (coil, y, x) or (slice, coil, y, x)"
            )
        given = as_complex("kspace", values)
        _check_coil_axis(given.shape)
        if (given.real >= 0).all() and not given.imag.any() and given.real.any():
            logger.warning("kspace has no phase: is it a magnitude?")
        slices = given.reshape(-1, *given.shape[-3:])
        grid = (len(slices), *given.shape[-2:])
        masks = [None] * len(slices) if mask is None else _per_sample("mask", mask, grid, "bui")
        counts = (
            [None] * len(slices)
            if averages is None
            else _per_sample("averages", averages, grid, "uif")
        )
        calibrations = _calibrations(calibration, given.shape)
        return [
            cls.of(own, mask=m, averages=n, calibration=c, noise_covariance=noise_covariance)
            for own, m, n, c in zip(slices, masks, counts, calibrations, strict=True)
        ]

    @classmethod
    def volume(
        cls,
        values: Any,
        *,
        mask: Any = None,
        averages: Any = None,
        calibration: Any = None,
        noise_covariance: Any = None,
    ) -> KSpace:
        """K-space of a volume with two phase-encode directions, (coil, z, y, x); see `of`.

        Parameters
        ----------
        values : complex array, (coil, z, y, x)
        mask : bool array, (z, y), or (z, y, x), optional
        averages : array, (z, y, x), optional
        calibration : complex array, shape of `values`, optional
        noise_covariance : complex array, (coil, coil), optional

        Raises
        ------
        InputError
            As `of`.
        """
        shape = np.shape(values)
        if len(shape) != 4 or 0 in shape:
            raise InputError(f"kspace has shape {shape}: expected (coil, z, y, x)")
        if calibration is not None and np.shape(calibration) != shape:
            raise InputError(
                f"calibration has shape {np.shape(calibration)}: expected that of kspace, {shape}"
            )
        if mask is not None:
            mask = _as_numpy(mask)
            if mask.dtype.kind not in "bui" or mask.shape not in (shape[1:3], shape[1:]):
                raise InputError(
                    f"mask is {mask.dtype} of shape {mask.shape}: expected true or false values of "
                    f"shape {shape[1:]}"
                )
            mask = np.broadcast_to(mask[..., None] if mask.ndim == 2 else mask, shape[1:])
        if averages is not None:
            averages = _as_numpy(averages)
            if averages.shape != shape[1:] or averages.dtype.kind not in "uif":
                raise InputError(
                    f"averages are {averages.dtype} of shape {averages.shape}: expected numbers of "
                    f"shape {shape[1:]}"
                )
        return cls.of(
            values,
            mask=mask,
            averages=averages,
            calibration=None if calibration is None else cls.of(calibration),
            noise_covariance=noise_covariance,
        )

    def __repr__(self) -> str:
        """In one line: the arrays are too long to be shown."""
        return f"<KSpace of {self.values.shape}, R = {self.acceleration:.2f}>"

    @property
    def coils(self) -> int:
        """Number of coils."""
        return len(self.values)

    @property
    def is_volume(self) -> bool:
        """Whether there are partitions."""
        return self.values.ndim == 4

    @property
    def acceleration(self) -> float:
        """Number of samples of the matrix over the number measured."""
        return float(1 / max(self.mask.mean(), 1e-9))

    @property
    def array(self) -> NDArray[Any]:
        """The values in the units in which they were measured."""
        return self.image(self.values)

    def in_unit(self, unit: float) -> KSpace:
        """The same k-space with values in another unit, a power of two."""
        if unit == self.unit:
            return self
        factor = self.unit / unit
        covariance = self.noise_covariance
        return replace(
            self,
            values=scaled(self.values, 1 / factor),
            noise_covariance=None if covariance is None else covariance * factor**2,
            unit=unit,
        )

    def image(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels in units of the measured values; in double precision where these demand it."""
        if SMALLEST_UNIT < self.unit < LARGEST_UNIT:
            return pixels * np.float32(self.unit)
        return pixels.astype(np.result_type(pixels.dtype, np.float64)) * self.unit

    def _compare_noise(self) -> None:
        """Warn if the given noise and the edges of k-space disagree."""
        if self.noise_covariance is None:
            return
        try:
            edges = covariance_from_edges(self.values, self.averages, self.mask)
        except InputError:  # too few samples to tell
            return
        given = noise_sigma(self.noise_covariance)
        ratio = noise_sigma(edges) / given
        if not 1 / DISAGREEMENT < ratio < DISAGREEMENT:
            logger.warning(
                "the given noise has sd %.4g, the edges of k-space %.4g: one of them is wrong, "
                "or the background is masked",
                given * self.unit,
                given * ratio * self.unit,
            )


def as_complex(name: str, value: Any) -> NDArray[np.complexfloating[Any, Any]]:
    """A complex NumPy array of an array or a torch tensor.

    Raises
    ------
    InputError
        The values are not complex.
    """
    array = _as_numpy(value)
    if array.dtype.kind != "c":
        raise InputError(f"{name} is {array.dtype}: expected complex values")
    return array


def unit_of(values: NDArray[Any]) -> float:
    """Power of two at or below the largest finite component; 1 if there is none."""
    parts = np.abs(
        values.view(values.real.dtype)
        if values.flags.c_contiguous
        else np.stack([values.real, values.imag])
    )
    largest = float(np.max(parts, initial=0.0, where=np.isfinite(parts)))
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


def scaled(array: NDArray[Any], unit: float) -> Array:
    """The array over a power of two, complex64."""
    # in two steps, since 1 / unit itself may be out of the range of float32
    root = 2.0 ** np.floor(np.log2(unit) / 2)
    kind = array.real.dtype.type
    return np.asarray(array / kind(root) / kind(unit / root), np.complex64)


def _as_numpy(value: Any) -> NDArray[Any]:
    """An array of whatever a caller holds: torch tensors of any device, type and laziness too."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().resolve_conj().resolve_neg().cpu()
    name = str(tensor.dtype)
    if name == "torch.complex32":
        tensor = tensor.cfloat()
    elif name == "torch.bfloat16":
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _check_coil_axis(shape: tuple[int, ...]) -> None:
    coils, x = shape[-3], shape[-1]
    if coils > MAX_COILS or coils > 4 * x:
        raise InputError(
            f"kspace has shape {shape}: expected (coil, y, x) or (slice, coil, y, x), with at most "
            f"{MAX_COILS} coils; is the coil the last axis?"
        )
    if coils > x:
        logger.warning(
            "kspace has %d coils of %d samples a line: is the coil the last axis?", coils, x
        )


def _finite(values: NDArray[Any], mask: Mask) -> tuple[NDArray[Any], Mask]:
    """Values that are zero where not measured, and the mask without samples that are not finite."""
    bad = mask & ~np.isfinite(values).all(axis=0)
    if bad.any():
        if values.ndim == 4:  # a volume is transformed along whole readouts or partitions
            bad = mask & bad.any(axis=-1, keepdims=True)
        logger.warning("%d samples of k-space are not finite and count as not measured", bad.sum())
        mask = mask & ~bad
    return np.where(mask, values, 0).astype(values.dtype), mask


def _counts(value: Any, mask: Mask) -> NDArray[np.float32]:
    counts = np.asarray(value)
    if not (np.isfinite(counts[mask]).all() and (counts[mask] > 0).all()):
        raise InputError("averages: expected a number above 0 for each measured sample")
    return np.where(mask, counts, 0).astype(np.float32)


def _relative(
    counts: NDArray[np.float32] | None, covariance: NDArray[np.complex128] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.complex128] | None]:
    """Averages over the fewest (None if all are equal), and the noise of samples with these."""
    if counts is None or not counts.any():
        return None, covariance
    fewest = counts[counts > 0].min()
    if covariance is not None:
        covariance = covariance / float(fewest)
    return counts / fewest if (counts > fewest).any() else None, covariance


def _covariance(value: Any, coils: int, unit: float) -> NDArray[np.complex128] | None:
    if value is None:
        return None
    covariance = _as_numpy(value).astype(np.complex128)
    if covariance.shape != (coils, coils):
        raise InputError(
            f"noise_covariance has shape {covariance.shape}: expected (coil, coil), "
            f"{(coils, coils)}"
        )
    covariance = covariance / unit**2
    whitening_matrix(covariance)  # raises if it is no covariance
    return covariance


def _per_sample(name: str, value: Any, grid: tuple[int, ...], kinds: str) -> Sequence[NDArray[Any]]:
    """Values of each line or sample, for each sample (slice, y, x)."""
    array = _as_numpy(value)
    if array.dtype.kind not in kinds:
        expected = "true or false values" if "b" in kinds else "numbers"
        raise InputError(f"{name} is {array.dtype}: expected {expected}")
    ny, nx = grid[1:]
    if array.shape == (ny,):
        array = array[:, None]
    elif array.shape not in ((ny, nx), grid):
        raise InputError(
            f"{name} has shape {array.shape}: expected (y,), (y, x) or (slice, y, x), {grid}"
        )
    return list(np.broadcast_to(array, grid))


def _calibrations(value: Any, shape: tuple[int, ...]) -> list[KSpace | None]:
    """Calibration lines of each slice; one array for all gives one object for all."""
    slices = 1 if len(shape) == 3 else shape[0]
    if value is None:
        return [None] * slices
    if isinstance(value, list) and value and isinstance(value[0], KSpace):
        given = value[0].values.shape
        if given != shape[-3:] or len(value) not in (1, slices):
            raise InputError(
                f"calibration is of {len(value)} slices of shape {given}: expected that of kspace, "
                f"{shape}"
            )
        return value if len(value) == slices else value * slices
    array = _as_numpy(value)
    if array.shape[-3:] != shape[-3:] or array.ndim not in (3, len(shape)):
        raise InputError(f"calibration has shape {array.shape}: expected that of kspace, {shape}")
    if array.ndim == 4 and len(array) != slices:
        raise InputError(f"calibration has {len(array)} slices: expected {slices}")
    as_complex("calibration", array)
    if array.ndim == 4:
        return [KSpace.of(own) for own in array]
    return [KSpace.of(array)] * slices
