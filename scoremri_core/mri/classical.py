"""Reconstructions without a learned prior: references, baselines, and what is sent in need."""

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges, whiten, whitening_matrix
from scoremri_core.mri.sampling import measured

_log = logging.getLogger(__name__)

Image = NDArray[np.complex64]

ITERATIONS, TOLERANCE = 50, 3e-4  # of the conjugate gradients; |residual| / |A^H y|
MISFIT = 2.0  # of squares, over those of the noise
EXCESS = 1.5  # of energy; up to 1.3 with good coil maps, 1.9 and more with those of 6 or 8 lines


def mvue(kspace: ArrayLike, maps: ArrayLike) -> Image:
    """Minimum-variance unbiased estimate from fully sampled data: sum conj(S) F^H k / sum |S|^2.

    Unbiased for any maps, of least variance where the coils' noise is white (Jalal et al. 2021).

    Parameters
    ----------
    kspace : (..., coil, y, x) complex, centred
    maps : (..., coil, y, x) complex

    Returns
    -------
    (..., y, x) complex64; zero where the maps are.
    """
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    weight = np.sum(np.abs(mps) ** 2, axis=-3)
    combined = np.sum(mps.conj() * to_image(ksp), axis=-3)
    image: Image = combined / np.where(weight > 0, weight, 1)
    return image


def zero_filled(kspace: ArrayLike, maps: ArrayLike) -> Image:
    """Coil combination of undersampled data as they are: the `mvue` with zeros for the rest."""
    return mvue(kspace, maps)


def root_sum_of_squares(kspace: ArrayLike) -> NDArray[np.float32]:
    """Root sum of squares of the coil images, (..., coil, y, x) to (..., y, x)."""
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
    """SENSE by conjugate gradients, regularised by the power spectrum of the image itself.

    The posterior mean of an image whose Fourier coefficients are independent Gaussians of the
    variance v(k) that the data have at that distance from DC:

        argmin |P F S x - y|^2 / 2 + sum_k |(F x)(k)|^2 / v(k)

    in whitened data, where each real component of the noise has variance 1 (Pruessmann et al.,
    MRM 46:638-651, 2001; the prior is Wiener's).

    Parameters
    ----------
    kspace : (coil, y, x) complex, centred, zeros where not sampled
    maps : (coil, y, x) or (set, coil, y, x) complex
    noise_covariance : (coil, coil), E[n n^H]; None estimates it from the edges of k-space.
    averages : (y, x), how often each sample was averaged, the covariance being that of a sample of
        averages 1; None takes all for 1.
    iterations, tolerance : of the conjugate gradients, |residual| / |A^H y|
    mask : (y, x) bool, which samples were measured; None takes those not zero in every coil

    Returns
    -------
    (y, x), or (set, y, x) where the maps have sets; complex64.

    Raises
    ------
    InputError
        Shapes that do not fit, or no measured samples.
    """
    ksp, mps = _fitting(kspace, maps)
    problem = _Sense(ksp, mps, noise_covariance, averages, mask)
    solution = problem.solved(iterations, tolerance)
    return solution if mps.ndim == 4 else solution[0]


def _fitting(kspace: ArrayLike, maps: ArrayLike) -> tuple[Image, Image]:
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    if ksp.ndim != 3 or mps.ndim not in (3, 4) or mps.shape[-3:] != ksp.shape:
        raise InputError(
            f"Coil maps of shape {mps.shape} do not fit k-space of shape {ksp.shape}: "
            "expected (coil, y, x) each, the maps with or without a leading set axis."
        )
    return ksp, mps


class _Sense:
    """The problem that `cg_sense` solves, of k-space (coil, y, x) and maps (set, coil, y, x).

    Attributes
    ----------
    covariance : (coil, coil) of the noise, as it was given or estimated.
    mask : (y, x), where k-space was measured.
    spectrum : (y, x), v(k) of the image.
    """

    def __init__(
        self,
        kspace: Image,
        maps: Image,
        noise_covariance: ArrayLike | None,
        averages: ArrayLike | None,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        import torch

        from scoremri_core.mri.sense import SenseOperator

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
            torch.from_numpy(self._maps)[None], torch.from_numpy(self.mask)[None], weight
        )
        self._data = self._operator.reduced(torch.from_numpy(white)[None])[:, None]

    def solved(self, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Image:
        """The image (set, y, x), by its Fourier coefficients, in which the prior is diagonal."""
        import torch

        shape = (len(self._maps), *self.mask.shape)
        # DC at index 0, as the operator has it
        penalty = np.fft.ifftshift(2 / self.spectrum).astype(np.float32)
        # What remains of `normal` where the coils are taken for one of their mean sensitivity.
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
        solved: Image = image(solution.astype(np.complex64))[0, 0].numpy()
        return solved

    def misfit(self, image: Image) -> float:
        """Mean square of what an image (set, y, x) leaves of the data, over that of the noise."""
        import torch

        left = self._operator.residual_power(self._data, torch.from_numpy(image)[None, None])
        given = self._maps.shape[1] * int(self.mask.sum())
        # of which the image has as many as it has pixels, or less
        free = max(given - image.size, given // 4)
        return float(left.sum(dtype=torch.float64)) / 2 / free

    def excess(self, image: Image) -> float:
        """Energy of an image (set, y, x) where nothing was measured, over that expected there."""
        held = np.sum(np.abs(to_kspace(image)) ** 2, axis=0)[~self.mask].sum()
        return float(held / max(self.spectrum[~self.mask].sum(), np.finfo(np.float32).tiny))


def l1_wavelet(kspace: ArrayLike, maps: ArrayLike, lam: float, iterations: int = 100) -> Image:
    """Sparse SENSE: argmin |P F S x - y|^2 / 2 + lam |W x|_1, by sigpy's L1WaveletRecon.

    Parameters
    ----------
    kspace : (coil, y, x) complex, centred, zeros where not sampled
    maps : (coil, y, x) complex
    lam : weight for an image whose zero-filled version has its 99th percentile at 1; 0.003 to
        0.03 is usual.
    iterations : of FISTA

    References
    ----------
    Lustig, Donoho & Pauly, "Sparse MRI", MRM 58:1182-1195 (2007).
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
    """The image to send where posterior samples cannot be drawn; it always comes out finite.

    `cautious_sense` where there are coil maps (of several sets: their root sum of squares with
    the first one's phase), the root sum of squares otherwise. Samples that are not finite count
    as not measured.

    Parameters
    ----------
    kspace : (coil, y, x) complex, centred, zeros where not sampled
    maps : (coil, y, x) or (set, coil, y, x), or None
    noise_covariance : (coil, coil), or None to estimate it
    averages, mask : as for `cg_sense`

    Returns
    -------
    (y, x) complex64
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
        _log.warning("Root sum of squares instead of SENSE: %s", error)
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
    """`cg_sense`, with more noise where its coil maps are visibly wrong.

    Maps that are wrong, as those of a few calibration lines, make SENSE amplify what they do not
    explain: its image then leaves more of the data than noise would, and holds more where nothing
    was measured than the spectrum of the data lets one expect. Where both are so, all that it
    left counts as noise (the discrepancy principle of Morozov, with errors of the operator).
    Either alone is no reason: noise may be understated, and spectra differ from their mean.

    Parameters
    ----------
    kspace, maps, noise_covariance, averages, mask : as for `cg_sense`

    Returns
    -------
    As `cg_sense`.
    """
    ksp, mps = _fitting(kspace, maps)
    problem = _Sense(ksp, mps, noise_covariance, averages, mask)
    image = problem.solved()
    misfit, excess = problem.misfit(image), problem.excess(image)
    if misfit >= MISFIT and excess >= EXCESS:
        _log.warning(
            "SENSE leaves %.0f times the noise of the data, and what it fills in has %.1f times "
            "the energy that one expects: the coil maps are wrong, and it is regularised more",
            misfit**0.5,
            excess,
        )
        image = _Sense(ksp, mps, misfit * problem.covariance, averages, mask).solved()
    return image if mps.ndim == 4 else image[0]


def _power_spectrum(
    ksp: Image, mask: NDArray[np.bool_], covariance: NDArray[Any]
) -> NDArray[np.float64]:
    """Energy (y, x) of the image's Fourier coefficients: radial mean of the data's, less noise.

    Only directions of coil space that hold signal count: in the others noise is all there is, and
    that of many coils is never known well enough to be subtracted.
    """
    ny, nx = mask.shape
    y, x = ((np.arange(n) - n // 2) / n for n in (ny, nx))
    ring = np.rint(np.hypot(y[:, None], x) * min(ny, nx)).astype(int)
    rings = int(ring.max()) + 1
    count = np.bincount(ring[mask], minlength=rings)
    directions = _signal_directions(ksp[:, mask], covariance)
    shown = directions.astype(np.complex64) @ ksp[:, mask]
    energy = np.bincount(ring[mask], np.sum(np.abs(shown) ** 2, axis=0), minlength=rings)
    noise = float(np.trace(directions @ covariance @ directions.conj().T).real)
    least = 0.1 * float(np.trace(covariance).real) / len(ksp)
    measured = np.flatnonzero(count)
    signal = np.maximum(energy[measured] / count[measured] - noise, least)
    spectrum: NDArray[np.float64] = np.interp(np.arange(rings), measured, signal)[ring]
    return spectrum


def _signal_directions(samples: Image, covariance: NDArray[Any]) -> NDArray[np.complex128]:
    """Matrix (direction, coil) that keeps of samples (coil, n) what exceeds noise, and its norm.

    Its rows are the principal components of the whitened samples beyond the largest that noise
    alone has (Marchenko and Pastur), and the first one in any case.
    """
    whitening = whitening_matrix(covariance)
    gram = (samples @ samples.conj().T).astype(np.complex128)
    energies, components = np.linalg.eigh(whitening @ gram @ whitening.conj().T)
    edge = 2 * (np.sqrt(samples.shape[1]) + np.sqrt(len(samples))) ** 2
    kept = components[:, min(int(np.sum(energies <= edge)), len(energies) - 1) :]
    _, lengths = np.linalg.qr(np.linalg.solve(whitening, kept))
    return np.asarray(lengths @ kept.conj().T @ whitening)
