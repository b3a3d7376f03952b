"""Noise covariance of the likelihood.

Its steps, in order of application:

1. Given, or estimated from the edges of k-space (`NoiseModel.of`).
2. Raised to the residual of the calibration lines under the coil maps (`update_from_calibration`).
3. Raised to a floor for numerical stability (`apply_floor`).
4. Raised to the residual of the samples, followed by resampling (`update_from_samples`). During
   sampling, the default sampler adapts the level per spatial frequency and line
   (`samplers.noise_level.NoiseLevel`).
5. Inflated if the residual is still too large, followed by the last resampling (`inflate`).

The covariance is never lowered: noise that is too low makes samples follow errors of the coil
maps, motion or vendor filters, while noise that is twice too high costs little. The estimators are
in `scoremri_core.mri.noise.covariance`.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from scoremri_core.errors import CalibrationError
from scoremri_core.kspace import KSpace
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise.covariance import (
    covariance_from_edges,
    noise_sigma,
    sample_covariance,
    whiten,
    whitening_matrix,
)
from scoremri_core.mri.sampling import calibration_extent, measured

logger = logging.getLogger(__name__)

MIN_SIGMA = 0.001  # of the image scale: the floor, below which solvers do not converge
OUTER = 0.6  # of the readout's half-width: beyond it, errors of the coil maps are small
OBJECT = 0.1  # of the signal's 99th percentile: threshold of the object
QUIET_FRACTION = 0.5  # of the object's pixels; the others hold sharp edges, where maps err more
QUIET_BIAS = 1.15  # variance of all pixels of pure noise over that of the quiet ones
NEIGHBOURS = 5  # width of the window that averages residuals to find the quiet pixels
EXCESS_VARIANCE = 1.5  # observed over assumed variance above which the latter is raised
MAX_MISFIT = 3.0  # mean squared residual over the noise variance, above which they disagree
INFLATION = 4.0, 100.0  # smallest and largest factor of `inflate` on the variance

Array = NDArray[np.complex64]
Covariance = NDArray[np.complex128]


class NoiseModel:
    """Noise covariance of a slice.

    All covariances are those of a sample with one average.

    Parameters
    ----------
    thermal : complex128 array, (coil, coil), or None
        Covariance given by the caller or estimated from the edges of k-space; None if unknown.
    averages : float32 array, (y, x), optional
        Number of averages of each sample, which divides its covariance. Default: 1.

    Attributes
    ----------
    covariance : complex128 array, (coil, coil), or None
        `thermal`, raised to the noise that the data show.
    initial_covariance : complex128 array, (coil, coil), or None
        `covariance` before sampling, for classical images.
    """

    def __init__(
        self, thermal: Covariance | None, averages: NDArray[np.float32] | None = None
    ) -> None:
        self.thermal = self.covariance = self.initial_covariance = thermal
        self.averages = averages
        self._max_averages = 1.0 if averages is None else float(averages.max(initial=1.0))

    @classmethod
    def of(cls, kspace: KSpace) -> NoiseModel:
        """Take the noise covariance of a slice, or estimate it from the edges of k-space.

        Parameters
        ----------
        kspace : KSpace

        Returns
        -------
        NoiseModel

        Raises
        ------
        InputError
            No covariance is given and too few samples were measured for an estimate.
        """
        thermal = kspace.noise_covariance
        if thermal is None:
            thermal = covariance_from_edges(kspace.values, kspace.averages, kspace.mask)
        return cls(thermal, kspace.averages)

    def update_from_calibration(self, kspace: KSpace, maps: Array) -> bool:
        """Raise the thermal noise to the residual of the calibration lines.

        Parameters
        ----------
        kspace : KSpace
        maps : complex64 array, (set, coil, y, x)

        Returns
        -------
        bool
            Whether the covariance was raised.
        """
        thermal = self.thermal
        assert thermal is not None  # required to estimate maps
        # white noise spreads evenly over the space orthogonal to the maps
        whitening = whitening_matrix(thermal) * noise_sigma(thermal)
        residual = residual_covariance(
            whiten(kspace.values, whitening), whiten(maps, whitening), self.averages, kspace.mask
        )
        if residual is not None:
            root = np.linalg.inv(whitening)
            residual = root @ residual @ root.conj().T
        self.covariance = self.initial_covariance = raise_covariance(thermal, residual)
        return self.covariance is not thermal

    def apply_floor(self, scale: float) -> None:
        """Raise the noise to a minimum, relative to the scale of the image.

        Parameters
        ----------
        scale : float
            Image value that the prior sees as 1.
        """
        # samples with the most averages have the least noise
        min_sigma = MIN_SIGMA * (scale * self._max_averages**0.5)
        self.covariance = with_min_sigma(self._known(), min_sigma)
        self.initial_covariance = self.covariance

    def update_from_samples(self, residual: Covariance | None) -> bool:
        """Raise the noise to the residual of the samples, if that is far larger.

        The sampler adapts the level of the noise by itself, but not its covariance between coils.

        Parameters
        ----------
        residual : complex128 array, (coil, coil), or None
            Covariance of the residual.

        Returns
        -------
        bool
            Whether the covariance was raised, so that the slice must be resampled.
        """
        assumed = self._known()
        more = raise_covariance(assumed, residual)
        ratio = noise_sigma(more) / noise_sigma(assumed)
        if ratio**2 < MAX_MISFIT:
            return False
        logger.info("residual is %.2f times the assumed noise sd; resampling", ratio)
        self.covariance = more
        return True

    def inflate(self, misfit: float) -> None:
        """Scale the noise variance by the misfit of samples, 4 to 100.

        Parameters
        ----------
        misfit : float
            Mean squared residual over the variance of `covariance`.
        """
        factor = float(np.clip(np.nan_to_num(misfit, nan=INFLATION[1]), *INFLATION))
        logger.warning(
            "residual exceeds that of the classical image; resampling with %.1f times the noise sd",
            factor**0.5,
        )
        self.covariance = factor * self._known()

    def is_inconsistent(self, misfit: float) -> bool:
        """Whether the misfit of samples is too large for the initial noise.

        Parameters
        ----------
        misfit : float
            Mean squared residual over the variance of `covariance`.

        Returns
        -------
        bool
        """
        ratio = _sigma(self.covariance) / _sigma(self.initial_covariance)
        return not misfit * ratio**2 < MAX_MISFIT

    def whitening(self) -> NDArray[np.complex128]:
        """Compute the whitening matrix of a sample with one average.

        Returns
        -------
        complex128 array, (coil, coil)
        """
        return whitening_matrix(self._known())

    def white(self, kspace: Array) -> Array:
        """Whiten k-space to unit noise in all samples.

        Parameters
        ----------
        kspace : complex64 array, (..., coil, y, x)

        Returns
        -------
        complex64 array, (..., coil, y, x)
        """
        white: Array = whiten(kspace, self.whitening())
        return white if self.averages is None else white * np.sqrt(self.averages)

    @property
    def sigma_thermal(self) -> float:
        """Thermal noise sd of each real component, root mean square over coils; NaN if unknown."""
        return _sigma(self.thermal)

    @property
    def raised_by(self) -> float:
        """Noise sd over thermal noise sd; 1 if unknown."""
        if self.covariance is self.thermal:
            return 1.0
        return _sigma(self.covariance) / self.sigma_thermal

    def sigma_used(self, misfit: float) -> float:
        """Return the noise sd of the likelihood at the end of sampling.

        Parameters
        ----------
        misfit : float
            Mean squared residual over the variance of `covariance`.

        Returns
        -------
        float
        """
        adapted = misfit if np.isfinite(misfit) else 1.0
        return _sigma(self.covariance) * float(np.sqrt(max(1.0, adapted)))

    def thermal_misfit(self, misfit: float) -> float:
        """Convert a misfit relative to `covariance` to one relative to the thermal noise.

        Parameters
        ----------
        misfit : float
            Mean squared residual over the variance of `covariance`.

        Returns
        -------
        float
            NaN if the thermal noise is zero.
        """
        thermal = self.sigma_thermal
        return misfit * (_sigma(self.covariance) / thermal) ** 2 if thermal else float("nan")

    def _known(self) -> Covariance:
        assert self.covariance is not None  # required for sampling
        return self.covariance


def _sigma(covariance: Covariance | None) -> float:
    return float("nan") if covariance is None else noise_sigma(covariance)


def residual_covariance(
    kspace: ArrayLike,
    maps: ArrayLike,
    averages: ArrayLike | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Covariance | None:
    """Estimate the noise covariance from the residual of calibration lines under the coil maps.

    For C coils and S sets, the component of the coil images orthogonal to the maps holds (C - S)/C
    of the noise variance and none of the object, even if the background is masked or the edges of
    k-space are filtered. It is evaluated in the outer samples of the readouts, where errors of the
    maps are small, and in the quieter half of the object.

    Parameters
    ----------
    kspace : complex array, (coil, y, x)
        Centred, zero where not sampled.
    maps : complex array, (set, coil, y, x)
    averages : array, (y, x), optional
        Number of averages of each sample. Default: 1.
    mask : bool array, (y, x), optional
        Measured samples. Default: those that are not zero in every coil.

    Returns
    -------
    complex128 array, (coil, coil), or None
        Covariance of a sample with one average. None with fewer than 8 calibration lines, partial
        readouts, a small object, or no more coils than sets.
    """
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    sets, coils, ny, nx = mps.shape
    try:
        rows, columns = calibration_extent(measured(ksp, mask))
    except CalibrationError:
        return None
    band = np.abs(np.arange(nx) - nx // 2) >= OUTER * nx / 2
    band[: columns.start] = band[columns.stop :] = False
    if rows.stop - rows.start < 8 or band.sum() < nx / 5 or coils <= sets:
        return None
    block = np.zeros_like(ksp)
    block[:, rows] = ksp[:, rows]
    signal = np.linalg.norm(to_image(block), axis=0)
    inside = signal > OBJECT * np.percentile(signal, 99)
    residual = _unexplained(to_image(block * band), mps)
    power = uniform_filter(np.sum(np.abs(residual) ** 2, axis=0), NEIGHBOURS, mode="wrap")
    if inside.sum() < 8 * coils:
        return None
    quiet = inside & (power <= np.quantile(power[inside], QUIET_FRACTION))
    values = residual[:, quiet].astype(np.complex128)
    sampled = (rows.stop - rows.start) * band.sum() / (ny * nx)
    covariance = QUIET_BIAS * coils / (coils - sets) / sampled * sample_covariance(values)
    if averages is not None:
        covariance /= np.mean(1 / np.asarray(averages)[rows][:, band])
    return covariance


def raise_covariance(covariance: ArrayLike, observed: ArrayLike | None) -> Covariance:
    """Raise a covariance in the directions of coil space in which more noise is observed.

    Computes W^-1 max(W observed W^H, I) W^-H, with W the whitening matrix of `covariance` and the
    maximum over eigenvalues. Eigenvalues up to 1.5 are taken as 1.

    Parameters
    ----------
    covariance : complex array, (coil, coil)
    observed : complex array, (coil, coil), or None

    Returns
    -------
    complex128 array, (coil, coil)
        `covariance` itself if nothing is raised.
    """
    assumed = np.asarray(covariance, np.complex128)
    if observed is None:
        return assumed
    whitening = whitening_matrix(assumed) / np.sqrt(2)
    values, vectors = np.linalg.eigh(whitening @ np.asarray(observed) @ whitening.conj().T)
    more = values > EXCESS_VARIANCE
    if not more.any():
        return assumed
    root = np.linalg.inv(whitening) @ vectors * np.sqrt(np.where(more, values, 1))
    return np.asarray(root @ root.conj().T)


def with_min_sigma(covariance: ArrayLike, min_sigma: float) -> Covariance:
    """Scale a covariance up to a minimum sd.

    Parameters
    ----------
    covariance : complex array, (coil, coil)
    min_sigma : float

    Returns
    -------
    complex128 array, (coil, coil)
        `covariance` itself if its sd is sufficient.
    """
    assumed = np.asarray(covariance, np.complex128)
    sigma = noise_sigma(assumed)
    return assumed if sigma >= min_sigma else assumed * (min_sigma / sigma) ** 2


def _unexplained(
    coil_images: NDArray[np.complex64], maps: NDArray[np.complex64]
) -> NDArray[np.complex64]:
    """Project coil images (coil, y, x) onto the complement of the maps (set, coil, y, x)."""
    residual = coil_images
    basis: list[NDArray[np.complex64]] = []
    for direction in maps:
        for other in basis:
            direction = direction - other * np.sum(other.conj() * direction, axis=0)
        norm = np.linalg.norm(direction, axis=0)
        # the second set is zero in most pixels
        direction = np.where(norm > 1e-3, direction / np.where(norm > 1e-3, norm, 1), 0)
        residual = residual - direction * np.sum(direction.conj() * residual, axis=0)
        basis.append(direction)
    return residual
