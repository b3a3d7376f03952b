"""Measured k-space: the checked input of all reconstruction steps."""

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

MAX_COILS = 128  # a longer axis is not the coil axis
MAX_NOISE_RATIO = 2.0  # between noise_covariance and the edges of k-space, above which to warn
MIN_UNIT, MAX_UNIT = 2.0**-105, 2.0**110  # range of units whose images fit float32


@dataclass(frozen=True, eq=False)
class KSpace:
    """Measured k-space of one slice or volume.

    Created by `of`, `stack` or `volume`, which check their arguments; the constructor does not.

    Attributes
    ----------
    values : complex64 array, (coil, y, x) or (coil, z, y, x)
        Centred k-space, zero where not measured. Scaled so that the largest component is between 1
        and 2 and squares stay in the range of float32.
    mask : bool array, (y, x) or (z, y, x)
        Measured samples.
    averages : float32 array, shape of `mask`, or None
        Number of averages of each sample over the smallest number, 0 where not measured; None if
        all are equal.
    noise_covariance : complex128 array, (coil, coil), or None
        E[n n^H] of the samples with the fewest averages, in units of `values`; None if unknown.
    calibration : KSpace or None
        Separate calibration lines on the same matrix.
    unit : float
        Power of two; the measured values are `values * unit`.
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
        """Create the k-space of one slice or volume from arrays.

        Samples that are not finite in a coil count as not measured; in a volume, so does their
        whole readout.

        Parameters
        ----------
        values : complex array, (coil, y, x) or (coil, z, y, x)
            Centred k-space.
        mask : bool array, (y, x) or (z, y, x), optional
            Measured samples. Default: those that are not zero in every coil.
        averages : array, shape of `mask`, optional
            Number of averages of each sample. Default: 1.
        calibration : KSpace, optional
            Separate calibration lines on the same matrix.
        noise_covariance : complex array, (coil, coil), optional
            E[n n^H] of a sample with one average.

        Returns
        -------
        KSpace

        Raises
        ------
        InputError
            Wrong shape or type, invalid covariance, or averages that are not positive.
        """
        complex_values = as_complex("kspace", values)
        if complex_values.ndim not in (3, 4) or 0 in complex_values.shape:
            raise InputError(
                f"kspace has shape {complex_values.shape}: expected (coil, y, x) or (coil, z, y, x)"
            )
        unit = unit_of(complex_values)
        finite, sampled = _finite(complex_values, measured(complex_values, mask))
        array = scaled(finite, unit)
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
        """Create the k-space of each slice of a stack.

        Parameters
        ----------
        values : complex array, (coil, y, x) or (slice, coil, y, x)
            Centred k-space.
        mask : bool array, (y,), (y, x) or (slice, y, x), optional
            See `of`.
        averages : array, (y,), (y, x) or (slice, y, x), optional
            See `of`.
        calibration : complex array or list of KSpace, optional
            Separate calibration lines, (coil, y, x) or (slice, coil, y, x).
        noise_covariance : complex array, (coil, coil), optional
            See `of`.

        Returns
        -------
        list of KSpace

        Raises
        ------
        InputError
            See `of`.
        """
        shape = np.shape(values)
        if len(shape) not in (3, 4) or 0 in shape:
            raise InputError(
                f"kspace has shape {shape}: expected (coil, y, x) or (slice, coil, y, x)"
            )
        given = as_complex("kspace", values)
        _check_coil_axis(given.shape)
        if (given.real >= 0).all() and not given.imag.any() and given.real.any():
            logger.warning("kspace is real and not negative: is it a magnitude image?")
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
            cls.of(k, mask=m, averages=n, calibration=c, noise_covariance=noise_covariance)
            for k, m, n, c in zip(slices, masks, counts, calibrations, strict=True)
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
        """Create the k-space of a volume with two phase-encode directions.

        Parameters
        ----------
        values : complex array, (coil, z, y, x)
            Centred k-space.
        mask : bool array, (z, y) or (z, y, x), optional
            See `of`.
        averages : array, (z, y, x), optional
            See `of`.
        calibration : complex array, (coil, z, y, x), optional
            Separate calibration lines.
        noise_covariance : complex array, (coil, coil), optional
            See `of`.

        Returns
        -------
        KSpace

        Raises
        ------
        InputError
            See `of`.
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
                    f"mask is {mask.dtype} of shape {mask.shape}: expected bool of shape "
                    f"{shape[1:3]} or {shape[1:]}"
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
        """Summarise in one line."""
        return f"<KSpace of {self.values.shape}, R = {self.acceleration:.2f}>"

    @property
    def coils(self) -> int:
        """Number of coils."""
        return len(self.values)

    @property
    def is_volume(self) -> bool:
        """Whether `values` is (coil, z, y, x)."""
        return self.values.ndim == 4

    @property
    def acceleration(self) -> float:
        """Number of samples of the matrix over number of measured samples."""
        return float(1 / max(self.mask.mean(), 1e-9))

    @property
    def array(self) -> NDArray[Any]:
        """Values in the measured units."""
        return self.image(self.values)

    def in_unit(self, unit: float) -> KSpace:
        """Convert `values` to another unit.

        Parameters
        ----------
        unit : float
            A power of two.

        Returns
        -------
        KSpace
        """
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
        """Convert an image in units of `values` to the measured units.

        Parameters
        ----------
        pixels : array

        Returns
        -------
        array, shape of `pixels`
            Of its precision, or double precision if float32 cannot hold the measured units.
        """
        if MIN_UNIT < self.unit < MAX_UNIT:
            return pixels * np.float32(self.unit)
        return pixels.astype(np.result_type(pixels.dtype, np.float64)) * self.unit

    def _compare_noise(self) -> None:
        """Warn if `noise_covariance` and the edges of k-space disagree."""
        if self.noise_covariance is None:
            return
        try:
            edges = covariance_from_edges(self.values, self.averages, self.mask)
        except InputError:  # too few samples for an estimate
            return
        given = noise_sigma(self.noise_covariance)
        ratio = noise_sigma(edges) / given
        if not 1 / MAX_NOISE_RATIO < ratio < MAX_NOISE_RATIO:
            logger.warning(
                "noise_covariance has sd %.4g, the edges of k-space %.4g: the covariance is in "
                "other units, or the background is masked",
                given * self.unit,
                given * ratio * self.unit,
            )


def as_complex(name: str, value: Any) -> NDArray[np.complexfloating[Any, Any]]:
    """Convert an array or a torch tensor to a complex NumPy array.

    Parameters
    ----------
    name : str
        Of the argument, for the error message.
    value : array or torch.Tensor

    Returns
    -------
    complex array

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
    """Return the power of two at or below the largest finite component of complex values.

    Parameters
    ----------
    values : complex array

    Returns
    -------
    float
        1 if all finite components are zero.
    """
    parts = np.abs(
        values.view(values.real.dtype)
        if values.flags.c_contiguous
        else np.stack([values.real, values.imag])
    )
    largest = float(np.max(parts, initial=0.0, where=np.isfinite(parts)))
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


def scaled(array: NDArray[Any], unit: float) -> Array:
    """Divide an array by a power of two.

    Parameters
    ----------
    array : complex array
    unit : float

    Returns
    -------
    complex64 array
    """
    # in two steps, since 1 / unit may be out of the range of float32
    root = 2.0 ** np.floor(np.log2(unit) / 2)
    kind = array.real.dtype.type
    return np.asarray(array / kind(root) / kind(unit / root), np.complex64)


def _as_numpy(value: Any) -> NDArray[Any]:
    """Convert arrays, and torch tensors of any device and type, to NumPy."""
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
    """Raise or warn if the third-last axis is probably not that of the coils."""
    coils, x = shape[-3], shape[-1]
    if coils > MAX_COILS or coils > 4 * x:
        raise InputError(
            f"kspace has shape {shape}: expected (coil, y, x) or (slice, coil, y, x), with at most "
            f"{MAX_COILS} coils; is the coil the last axis?"
        )
    if coils > x:
        logger.warning(
            "kspace has %d coils and %d readout samples: is the coil the last axis?", coils, x
        )


def _finite(values: NDArray[Any], mask: Mask) -> tuple[NDArray[Any], Mask]:
    """Set values to zero where not measured; exclude samples that are not finite from the mask."""
    bad = mask & ~np.isfinite(values).all(axis=0)
    if bad.any():
        if values.ndim == 4:  # the FFT along the readout would spread the gap
            bad = mask & bad.any(axis=-1, keepdims=True)
        logger.warning(
            "%d of %d k-space samples are not finite and count as not measured", bad.sum(), bad.size
        )
        mask = mask & ~bad
    return np.where(mask, values, 0).astype(values.dtype), mask


def _counts(value: Any, mask: Mask) -> NDArray[np.float32]:
    """Check averages; zero where not measured."""
    counts = np.asarray(value)
    if not (np.isfinite(counts[mask]).all() and (counts[mask] > 0).all()):
        raise InputError("averages: expected a number above 0 for each measured sample")
    return np.where(mask, counts, 0).astype(np.float32)


def _relative(
    counts: NDArray[np.float32] | None, covariance: NDArray[np.complex128] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.complex128] | None]:
    """Divide averages by the fewest (None if all are equal) and the covariance likewise."""
    if counts is None or not counts.any():
        return None, covariance
    fewest = counts[counts > 0].min()
    if covariance is not None:
        covariance = covariance / float(fewest)
    return counts / fewest if (counts > fewest).any() else None, covariance


def _covariance(value: Any, coils: int, unit: float) -> NDArray[np.complex128] | None:
    """Check a noise covariance and convert it to units of `values`."""
    if value is None:
        return None
    covariance = _as_numpy(value).astype(np.complex128)
    if covariance.shape != (coils, coils):
        raise InputError(
            f"noise_covariance has shape {covariance.shape}: expected (coil, coil), "
            f"{(coils, coils)}"
        )
    covariance = covariance / unit**2
    whitening_matrix(covariance)  # raises InputError if invalid
    return covariance


def _per_sample(name: str, value: Any, grid: tuple[int, ...], kinds: str) -> Sequence[NDArray[Any]]:
    """Broadcast values per line or per sample to (slice, y, x)."""
    array = _as_numpy(value)
    if array.dtype.kind not in kinds:
        expected = "bool" if "b" in kinds else "numbers"
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
    """Create the calibration k-space of each slice; one object for all from (coil, y, x)."""
    slices = 1 if len(shape) == 3 else shape[0]
    if value is None:
        return [None] * slices
    if isinstance(value, list) and value and isinstance(value[0], KSpace):
        given = value[0].values.shape
        if given != shape[-3:] or len(value) not in (1, slices):
            raise InputError(
                f"calibration has {len(value)} slices of shape {given}: expected that of kspace, "
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
        return [KSpace.of(k) for k in array]
    return [KSpace.of(array)] * slices
