"""The noise that the likelihood allows for: every rule of it, in the order in which they apply.

1. Given, or estimated from the edges of k-space (`NoiseModel.of`).
2. Raised to what the calibration lines show under the coil maps (`update_from_calibration`).
3. Raised to the smallest level that can be computed with (`apply_floor`).
4. Raised to the residual of the samples, which are drawn again (`update_from_samples`). Within a
   run the default sampler adapts the level per spatial frequency and line
   (`samplers.noise_level.NoiseLevel`).
5. Raised further if the samples still miss the data; they are drawn a last time (`inflate`).

Noise that is too low ruins the image: samples then follow errors of the coil maps, motion or a
vendor filter. Noise that is too high by a factor of two costs little. So it is never lowered. The
estimators are in `scoremri_core.mri.noise.covariance`.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from scoremri_core.errors import CalibrationError
from scoremri_core.kspace import KSpace
from scoremri_core.mri.coils.maps import calibration_extent
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise.covariance import (
    covariance_from_edges,
    noise_sigma,
    sample_covariance,
    whiten,
    whitening_matrix,
)
from scoremri_core.mri.sampling import measured

logger = logging.getLogger(__name__)

LEAST_SIGMA = 0.001  # of the image's scale: below it no solver converges and no prior is known
OUTER = 0.6  # of the readout's half-width: beyond it, errors of the maps count little
OBJECT = 0.1  # of the signal's 99th percentile
QUIET_SHARE = 0.5  # of the object's pixels: the others have sharp edges, of which maps know less
QUIET_BIAS = 1.15  # variance that all pixels of pure noise have over that of the quiet ones
NEIGHBOURS = 5  # pixels over which residuals are averaged before the quiet ones are chosen
CONTRADICTION = 1.5  # variance over the one believed from which on the latter is raised
DOUBTFUL = 3.0  # mean square of what samples leave of the data, over that of the noise
MORE = 4.0, 100.0  # least and largest factor on a variance that its own samples contradict

Array = NDArray[np.complex64]
Covariance = NDArray[np.complex128]


class NoiseModel:
    """What is believed of a slice's noise.

    Parameters
    ----------
    thermal : covariance (coil, coil) of the noise as it was given, or as the edges of k-space show
        it, in a sample of averages 1; None where it is not known.
    averages : (y, x), how often each sample was averaged, or None: the covariance in a sample is
        that of one average over its own.

    Attributes
    ----------
    covariance : the same, raised to what the data show.
    initial_covariance : `covariance` before sampling, for classical images and comparisons.
    """

    def __init__(
        self, thermal: Covariance | None, averages: NDArray[np.float32] | None = None
    ) -> None:
        self.thermal = self.covariance = self.initial_covariance = thermal
        self.averages = averages
        self._most = 1.0 if averages is None else float(averages.max(initial=1.0))

    @classmethod
    def of(cls, kspace: KSpace) -> NoiseModel:
        """The given noise of a slice, or an estimate from the edges of its k-space.

        Raises
        ------
        InputError
            No noise is given, and too few samples were measured to estimate it.
        """
        thermal = kspace.noise_covariance
        if thermal is None:
            thermal = covariance_from_edges(kspace.values, kspace.averages, kspace.mask)
        return cls(thermal, kspace.averages)

    def update_from_calibration(self, kspace: KSpace, maps: Array) -> bool:
        """Raise the thermal noise to what the data show under the maps; tell whether it is more."""
        believed = self.thermal
        assert believed is not None  # a slice whose noise is not known has no maps
        # the noise is spread evenly over what no image explains where it is white; in its own units
        whitening = whitening_matrix(believed) * noise_sigma(believed)
        shown = residual_covariance(
            whiten(kspace.values, whitening), whiten(maps, whitening), self.averages, kspace.mask
        )
        if shown is not None:
            root = np.linalg.inv(whitening)
            shown = root @ shown @ root.conj().T
        self.covariance = self.initial_covariance = raised(believed, shown)
        return self.covariance is not believed

    def apply_floor(self, scale: float) -> None:
        """Raise it to the least that goes with an image of that scale."""
        # the samples averaged most have the least
        self.covariance = with_least_level(self._known(), scale * self._most**0.5)
        self.initial_covariance = self.covariance

    def update_from_samples(self, left: Covariance | None) -> bool:
        """Raise it to the covariance that samples leave; tell whether it was far too low.

        The sampler follows the level of the noise by itself, but not how it is spread over the
        coils.
        """
        believed = self._known()
        more = raised(believed, left)
        ratio = noise_sigma(more) / noise_sigma(believed)
        if ratio**2 < DOUBTFUL:
            return False
        logger.info("the samples show %.2f times the sd of noise that was thought: again", ratio)
        self.covariance = more
        return True

    def inflate(self, misfit: float) -> None:
        """Raise it much: a likelihood that its own samples contradict is not to be trusted."""
        logger.warning("the samples miss the data: sampled again with more noise")
        more = float(np.clip(np.nan_to_num(misfit, nan=MORE[1]), *MORE))
        self.covariance = more * self._known()

    def is_inconsistent(self, misfit: float) -> bool:
        """Whether samples leave far more of the data than the noise before it was raised to fit."""
        raised_by = (_sigma(self.covariance) / _sigma(self.initial_covariance)) ** 2
        return not misfit * raised_by < DOUBTFUL

    def whitening(self) -> NDArray[np.complex128]:
        """The matrix that makes the noise of a sample of averages 1 unit noise."""
        return whitening_matrix(self._known())

    def white(self, kspace: Array) -> Array:
        """K-space (..., coil, y, x) whose noise is unit noise, however often it was averaged."""
        white: Array = whiten(kspace, self.whitening())
        return white if self.averages is None else white * np.sqrt(self.averages)

    @property
    def sigma_thermal(self) -> float:
        """Sd of each real component of the thermal noise, root mean square over coils.

        NaN where it is not known; of a sample of averages 1, like all of them here.
        """
        return _sigma(self.thermal)

    @property
    def raised_by(self) -> float:
        """Sd of the noise over that of the thermal noise; 1 where it is not known."""
        if self.covariance is self.thermal:
            return 1.0
        return _sigma(self.covariance) / self.sigma_thermal

    def sigma_used(self, misfit: float) -> float:
        """Sd of the noise that the likelihood allowed for in the end, as samples left `misfit`."""
        more = misfit if np.isfinite(misfit) else 1.0
        return _sigma(self.covariance) * float(np.sqrt(max(1.0, more)))

    def thermal_misfit(self, misfit: float) -> float:
        """A mean square over that of the noise in `covariance`, over that of the thermal noise."""
        thermal = self.sigma_thermal
        return misfit * (_sigma(self.covariance) / thermal) ** 2 if thermal else float("nan")

    def _known(self) -> Covariance:
        assert self.covariance is not None  # a slice whose noise is not known is not sampled
        return self.covariance


def _sigma(covariance: Covariance | None) -> float:
    return float("nan") if covariance is None else noise_sigma(covariance)


def residual_covariance(
    kspace: ArrayLike,
    maps: ArrayLike,
    averages: ArrayLike | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Covariance | None:
    """Noise covariance from what fully sampled lines hold that no image explains under the maps.

    The component of the coil images orthogonal to the maps has C - S of C parts of the noise and
    none of the object, however a vendor masked the background or filtered the edges of k-space.
    It is looked at in the outer samples of each readout, where errors of the maps count little,
    and in the quieter half of the object.

    Parameters
    ----------
    kspace : (coil, y, x), centred, zero where not sampled.
    maps : (set, coil, y, x).
    averages : (y, x), how often each sample was averaged; None takes all for 1.
    mask : (y, x), which samples were measured; None takes those that are not zero in every coil.

    Returns
    -------
    (coil, coil) of the noise in a sample of averages 1, or None where the data do not tell: fewer
    than 8 lines about DC that are sampled to the ends of the readout, or no more coils than sets.
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
    quiet = inside & (power <= np.quantile(power[inside], QUIET_SHARE))
    values = residual[:, quiet].astype(np.complex128)
    sampled = (rows.stop - rows.start) * band.sum() / (ny * nx)
    covariance = QUIET_BIAS * coils / (coils - sets) / sampled * sample_covariance(values)
    if averages is not None:
        covariance /= np.mean(1 / np.asarray(averages)[rows][:, band])
    return covariance


def raised(covariance: ArrayLike, shown: ArrayLike | None) -> Covariance:
    """The covariance, raised in the directions in which the data show more noise.

    Parameters
    ----------
    covariance, shown : (coil, coil); None shows nothing.

    Returns
    -------
    W^-1 max(W shown W^H, I) W^-H with W the whitening of `covariance`; an eigenvalue that exceeds
    1 by less than half, as chance makes it do, counts as 1.
    """
    believed = np.asarray(covariance, np.complex128)
    if shown is None:
        return believed
    whitening = whitening_matrix(believed) / np.sqrt(2)
    values, vectors = np.linalg.eigh(whitening @ np.asarray(shown) @ whitening.conj().T)
    more = values > CONTRADICTION
    if not more.any():
        return believed
    root = np.linalg.inv(whitening) @ vectors * np.sqrt(np.where(more, values, 1))
    return np.asarray(root @ root.conj().T)


def with_least_level(covariance: ArrayLike, scale: float) -> Covariance:
    """The covariance, or one larger in all directions where it is too small to compute with."""
    believed = np.asarray(covariance, np.complex128)
    sigma = noise_sigma(believed)
    least = LEAST_SIGMA * scale
    return believed if sigma >= least else believed * (least / sigma) ** 2


def _unexplained(coil_images: NDArray[np.complex64], maps: NDArray[np.complex64]) -> NDArray:
    """The part of coil images (coil, y, x) orthogonal to the maps (set, coil, y, x)."""
    left = coil_images
    basis: list[NDArray] = []
    for own in maps:
        direction = own
        for other in basis:
            direction = direction - other * np.sum(other.conj() * direction, axis=0)
        norm = np.linalg.norm(direction, axis=0)
        # the second set fades out where there is none
        direction = np.where(norm > 1e-3, direction / np.where(norm > 1e-3, norm, 1), 0)
        left = left - direction * np.sum(direction.conj() * left, axis=0)
        basis.append(direction)
    return left
