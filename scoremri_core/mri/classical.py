"""Reconstructions without a learned prior: references, baselines and fallbacks."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges, whiten, whitening_matrix
from scoremri_core.mri.sampling import measured
from scoremri_core.mri.sense import SenseOperator

logger = logging.getLogger(__name__)

Image = NDArray[np.complex64]

ITERATIONS, TOLERANCE = 50, 3e-4  # of conjugate gradients; |residual| / |A^H y|
MAX_MISFIT = 2.0  # mean squared residual over the noise variance
MAX_EXCESS = 1.5  # energy of unmeasured k-space; <= 1.3 for good coil maps, >= 1.9 from 6-8 lines


def mvue(kspace: ArrayLike, maps: ArrayLike) -> Image:
    """Compute the minimum-variance unbiased estimate sum conj(S) F^H k / sum |S|^2.

    See docs/methods.md, Eq. (18).

    Parameters
    ----------
    kspace : complex array, (..., coil, y, x)
        Centred, fully sampled, with white noise.
    maps : complex array, (..., coil, y, x)

    Returns
    -------
    complex64 array, (..., y, x)
        Zero where the maps are zero.

    References
    ----------
    .. [1] Jalal A et al. Robust compressed sensing MRI with deep generative priors. NeurIPS (2021).
    """
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    weight = np.sum(np.abs(mps) ** 2, axis=-3)
    combined = np.sum(mps.conj() * to_image(ksp), axis=-3)
    image: Image = combined / np.where(weight > 0, weight, 1)
    return image


def zero_filled(kspace: ArrayLike, maps: ArrayLike) -> Image:
    """Compute the `mvue` of undersampled k-space, zero where not sampled.

    Parameters
    ----------
    kspace : complex array, (..., coil, y, x)
    maps : complex array, (..., coil, y, x)

    Returns
    -------
    complex64 array, (..., y, x)
    """
    return mvue(kspace, maps)


def root_sum_of_squares(kspace: ArrayLike) -> NDArray[np.float32]:
    """Compute the root sum of squares of the coil images.

    Parameters
    ----------
    kspace : complex array, (..., coil, y, x)

    Returns
    -------
    float32 array, (..., y, x)
    """
    images = to_image(np.asarray(kspace, np.complex64))
    return np.sqrt(np.sum(np.abs(images) ** 2, axis=-3))


def cg_sense(
    kspace: ArrayLike,
    maps: ArrayLike,
    noise_covariance: ArrayLike | None = None,
    averages: ArrayLike | None = None,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    mask: NDArray[np.bool_] | None = None,
) -> Image:
    """Reconstruct by CG-SENSE, regularised by the power spectrum of the image.

    Computes

        argmin |P F S x - y|^2 / 2 + sum_k |(F x)(k)|^2 / v(k)

    for whitened data, the posterior mean of an image with independent Gaussian Fourier coefficients
    of variance v(k) (Wiener filter). v(k) is the radial power spectrum of the data. See
    docs/methods.md, Eq. (17).

    Parameters
    ----------
    kspace : complex array, (coil, y, x)
        Centred, zero where not sampled.
    maps : complex array, (coil, y, x) or (set, coil, y, x)
    noise_covariance : complex array, (coil, coil), optional
        E[n n^H] of a sample with one average. Default: estimated from the edges of k-space.
    averages : array, (y, x), optional
        Number of averages of each sample. Default: 1.
    iterations : int
        Maximum number of iterations.
    tolerance : float
        |residual| / |A^H y| at which to stop.
    mask : bool array, (y, x), optional
        Measured samples. Default: those that are not zero in every coil.

    Returns
    -------
    complex64 array, (y, x), or (set, y, x) for maps with sets

    Raises
    ------
    InputError
        Shapes do not match, or there are no measured samples.

    References
    ----------
    .. [1] Pruessmann KP et al. Advances in sensitivity encoding with arbitrary k-space
       trajectories. Magn Reson Med 46:638-651 (2001).
    """
    ksp, mps = _matching(kspace, maps)
    problem = _Sense(ksp, mps, noise_covariance, averages, mask)
    solution = problem.solve(iterations, tolerance)
    return solution if mps.ndim == 4 else solution[0]


def _matching(kspace: ArrayLike, maps: ArrayLike) -> tuple[Image, Image]:
    """Check that the shapes of k-space and coil maps match."""
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    if ksp.ndim != 3 or mps.ndim not in (3, 4) or mps.shape[-3:] != ksp.shape:
        raise InputError(
            f"maps has shape {mps.shape} and kspace {ksp.shape}: expected (coil, y, x) or "
            "(set, coil, y, x), and (coil, y, x)"
        )
    return ksp, mps


class _Sense:
    """Problem of `cg_sense` for k-space (coil, y, x) and maps (set, coil, y, x).

    Attributes
    ----------
    covariance : complex array, (coil, coil)
        Of the noise.
    mask : bool array, (y, x)
        Measured samples.
    spectrum : float array, (y, x)
        Variance v(k) of the image.
    """

    def __init__(
        self,
        kspace: Image,
        maps: Image,
        noise_covariance: ArrayLike | None,
        averages: ArrayLike | None,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        if noise_covariance is None:
            noise_covariance = covariance_from_edges(kspace, averages, mask)
        self.covariance = np.asarray(noise_covariance)
        self.mask = measured(kspace, mask)
        self.spectrum = _power_spectrum(kspace, self.mask, self.covariance)
        whitening = whitening_matrix(self.covariance)
        weight = None
        if averages is not None:
            weight = torch.from_numpy(self.mask * np.asarray(averages, np.float32))[None]
        white = whiten(kspace, whitening)
        if weight is not None:
            white *= np.sqrt(weight[0].numpy())
        self._maps = whiten(maps.reshape(-1, *kspace.shape), whitening)
        self._operator = SenseOperator(
            torch.from_numpy(self._maps)[None], torch.tensor(self.mask)[None], weight
        )
        self._data = self._operator.reduced(torch.from_numpy(white)[None])[:, None]

    def solve(self, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Image:
        """Solve for the Fourier coefficients and return the image (set, y, x)."""
        shape = (len(self._maps), *self.mask.shape)
        # DC at index 0, as in the operator
        penalty = np.fft.ifftshift(2 / self.spectrum).astype(np.float32)
        # preconditioner: `normal` of a single coil with the mean sensitivity
        sensitivity = np.mean(np.sum(np.abs(self._maps) ** 2, axis=(0, 1)))
        precision = self._operator.precision[0, 0, 0]
        density = torch.where(precision > 0, precision, precision.mean()).numpy()
        diagonal = sensitivity * density + penalty

        def spectrum(image: torch.Tensor) -> Any:
            return torch.fft.fftn(image[0, 0], dim=(-2, -1), norm="ortho").numpy().ravel()

        def image(values: Any) -> torch.Tensor:
            k = torch.from_numpy(values.reshape(shape))
            return torch.fft.ifftn(k, dim=(-2, -1), norm="ortho")[None, None]

        def normal(x: Any) -> Any:
            return spectrum(self._operator.normal(image(x))) + (penalty * x.reshape(shape)).ravel()

        size = int(np.prod(shape))
        empty = torch.zeros((1, 1, *shape), dtype=torch.complex64)
        solution, _ = cg(
            LinearOperator((size, size), matvec=normal, dtype=np.complex64),
            spectrum(self._operator.adjoint_residual(self._data, empty)),
            rtol=tolerance,
            maxiter=iterations,
            M=LinearOperator(
                (size, size),
                matvec=lambda x: (x.reshape(shape) / diagonal).ravel(),
                dtype=np.complex64,
            ),
        )
        result: Image = image(solution.astype(np.complex64))[0, 0].numpy()
        return result

    def misfit(self, image: Image) -> float:
        """Mean squared residual of an image (set, y, x) over the noise variance."""
        power = self._operator.residual_power(self._data, torch.from_numpy(image)[None, None])
        measurements = self._maps.shape[1] * int(self.mask.sum())
        degrees_of_freedom = max(measurements - image.size, measurements // 4)
        return float(power.sum(dtype=torch.float64)) / 2 / degrees_of_freedom

    def excess(self, image: Image) -> float:
        """Energy of an image (set, y, x) in unmeasured k-space over that of the spectrum."""
        energy = np.sum(np.abs(to_kspace(image)) ** 2, axis=0)[~self.mask].sum()
        return float(energy / max(self.spectrum[~self.mask].sum(), np.finfo(np.float32).tiny))


def l1_wavelet(kspace: ArrayLike, maps: ArrayLike, lam: float, iterations: int = 100) -> Image:
    """Reconstruct by L1-wavelet regularised SENSE: argmin |P F S x - y|^2 / 2 + lam |W x|_1.

    Uses the L1WaveletRecon of sigpy.

    Parameters
    ----------
    kspace : complex array, (coil, y, x)
        Centred, zero where not sampled.
    maps : complex array, (coil, y, x)
    lam : float
        Regularisation parameter, relative to the 99th percentile of the zero-filled image; usually
        0.003 to 0.03.
    iterations : int
        Iterations of FISTA.

    Returns
    -------
    complex64 array, (y, x)

    References
    ----------
    .. [1] Lustig M, Donoho D, Pauly JM. Sparse MRI. Magn Reson Med 58:1182-1195 (2007).
    """
    from sigpy.mri.app import L1WaveletRecon

    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    scale = np.float32(np.percentile(np.abs(zero_filled(ksp, mps)), 99)) or np.float32(1)
    app = L1WaveletRecon(ksp / scale, mps, lam, max_iter=iterations, show_pbar=False)
    image: Image = (app.run() * scale).astype(np.complex64)
    return image


def best_classical(
    kspace: ArrayLike,
    maps: ArrayLike | None,
    noise_covariance: ArrayLike | None,
    averages: ArrayLike | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Image:
    """Reconstruct the fallback image, which is always finite.

    This is `cautious_sense`, its sets combined by root sum of squares with the phase of the first,
    or without coil maps the root sum of squares of the coil images.

    Parameters
    ----------
    kspace : complex array, (coil, y, x)
        Centred, zero where not sampled. Samples that are not finite are ignored.
    maps : complex array, (coil, y, x) or (set, coil, y, x), or None
    noise_covariance : complex array, (coil, coil), or None
        None estimates it.
    averages : array, (y,) or (y, x), optional
        See `cg_sense`.
    mask : bool array, (y,) or (y, x), optional
        See `cg_sense`.

    Returns
    -------
    complex64 array, (y, x)
    """
    ksp = np.asarray(kspace, np.complex64)
    finite = np.isfinite(ksp).all(axis=0)
    if not finite.all():
        ksp, mask = np.where(finite, ksp, 0), measured(ksp, mask) & finite
    if maps is None or not np.isfinite(maps).all():
        return root_sum_of_squares(ksp).astype(np.complex64)
    try:
        image = cautious_sense(ksp, maps, noise_covariance, averages, mask)
    except InputError as error:
        logger.warning("root sum of squares instead of SENSE: %s", error)
        return root_sum_of_squares(ksp).astype(np.complex64)
    sets = image.reshape(-1, *ksp.shape[1:])
    if len(sets) > 1:
        sets = np.linalg.norm(sets, axis=0, keepdims=True) * np.exp(1j * np.angle(sets[:1]))
    return sets[0].astype(np.complex64)


def cautious_sense(
    kspace: ArrayLike,
    maps: ArrayLike,
    noise_covariance: ArrayLike | None = None,
    averages: ArrayLike | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Image:
    """Reconstruct by `cg_sense`, with more regularisation if the coil maps are inaccurate.

    Inaccurate maps, as from few calibration lines, increase both the residual and the energy in
    unmeasured k-space. If both exceed their thresholds, the noise is raised to the residual
    (discrepancy principle). One of them is not sufficient: the noise may be underestimated, and
    spectra vary.

    Parameters
    ----------
    kspace : complex array, (coil, y, x)
        Centred, zero where not sampled.
    maps : complex array, (coil, y, x) or (set, coil, y, x)
    noise_covariance : complex array, (coil, coil), optional
        See `cg_sense`, as for the others.
    averages : array, (y,) or (y, x), optional
    mask : bool array, (y,) or (y, x), optional

    Returns
    -------
    complex64 array, (y, x) or (set, y, x)
    """
    ksp, mps = _matching(kspace, maps)
    problem = _Sense(ksp, mps, noise_covariance, averages, mask)
    image = problem.solve()
    misfit, excess = problem.misfit(image), problem.excess(image)
    if misfit >= MAX_MISFIT and excess >= MAX_EXCESS:
        logger.warning(
            "residual of SENSE is %.0f times the noise sd, and unmeasured k-space has %.1f times "
            "the expected energy: the coil maps are inaccurate; regularisation increased",
            misfit**0.5,
            excess,
        )
        image = _Sense(ksp, mps, misfit * problem.covariance, averages, mask).solve()
    return image if mps.ndim == 4 else image[0]


def _power_spectrum(
    ksp: Image, mask: NDArray[np.bool_], covariance: NDArray[Any]
) -> NDArray[np.float64]:
    """Radial power spectrum (y, x) of the image: that of the data minus the noise.

    Uses only the directions of coil space with signal, since the noise of many coils is not known
    accurately enough to be subtracted.
    """
    ny, nx = mask.shape
    y, x = ((np.arange(n) - n // 2) / n for n in (ny, nx))
    ring = np.rint(np.hypot(y[:, None], x) * min(ny, nx)).astype(int)
    rings = int(ring.max()) + 1
    count = np.bincount(ring[mask], minlength=rings)
    directions = _signal_directions(ksp[:, mask], covariance)
    signal = directions.astype(np.complex64) @ ksp[:, mask]
    energy = np.bincount(ring[mask], np.sum(np.abs(signal) ** 2, axis=0), minlength=rings)
    noise = float(np.trace(directions @ covariance @ directions.conj().T).real)
    floor = 0.1 * float(np.trace(covariance).real) / len(ksp)
    known = np.flatnonzero(count)
    power = np.maximum(energy[known] / count[known] - noise, floor)
    spectrum: NDArray[np.float64] = np.interp(np.arange(rings), known, power)[ring]
    return spectrum


def _signal_directions(samples: Image, covariance: NDArray[Any]) -> NDArray[np.complex128]:
    """Projection (direction, coil) of samples (coil, n) onto the directions with signal.

    These are the principal components of the whitened samples above the Marchenko-Pastur edge of
    noise, at least one. The projection preserves the norm of the signal.
    """
    whitening = whitening_matrix(covariance)
    gram = (samples @ samples.conj().T).astype(np.complex128)
    energies, components = np.linalg.eigh(whitening @ gram @ whitening.conj().T)
    edge = 2 * (np.sqrt(samples.shape[1]) + np.sqrt(len(samples))) ** 2
    kept = components[:, min(int(np.sum(energies <= edge)), len(energies) - 1) :]
    _, lengths = np.linalg.qr(np.linalg.solve(whitening, kept))
    return np.asarray(lengths @ kept.conj().T @ whitening)
