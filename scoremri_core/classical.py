"""Reconstructions without a learned prior: references, baselines, and what is sent in need."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core.errors import InputError
from scoremri_core.fourier import to_image, to_kspace
from scoremri_core.noise import covariance_from_edges, whiten, whitening_matrix

Image = NDArray[np.complex64]


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
    regularisation: float | None = None,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> Image:
    """Tikhonov-regularised SENSE: argmin |P F S x - y|^2 / 2 + regularisation |x|^2 / 2.

    In whitened data, where each real component of the noise has variance 1 (Pruessmann et al.,
    MRM 46:638-651, 2001).

    Parameters
    ----------
    kspace : (coil, y, x) complex, centred, zeros where not sampled
    maps : (coil, y, x) or (set, coil, y, x) complex
    noise_covariance : (coil, coil), E[n n^H]; None estimates it from the edges of k-space.
    regularisation : None takes 1 / (mean square of the zero-filled image's real components), the
        best for an image of independent Gaussian pixels of that energy.
    iterations, tolerance : of the conjugate gradients, |residual| / |A^H y|

    Returns
    -------
    (y, x), or (set, y, x) where the maps have sets; complex64.

    Raises
    ------
    InputError
        Shapes that do not fit.
    """
    ksp, mps = np.asarray(kspace, np.complex64), np.asarray(maps, np.complex64)
    if ksp.ndim != 3 or mps.ndim not in (3, 4) or mps.shape[-3:] != ksp.shape:
        raise InputError(
            f"Coil maps of shape {mps.shape} do not fit k-space of shape {ksp.shape}: "
            "expected (coil, y, x) each, the maps with or without a leading set axis."
        )
    if noise_covariance is None:
        noise_covariance = covariance_from_edges(ksp)
    whitening = whitening_matrix(noise_covariance)
    mask = np.any(ksp != 0, axis=0)
    data = whiten(ksp, whitening)
    white = whiten(mps, whitening).reshape(-1, *ksp.shape)
    shape = (len(white), *ksp.shape[1:])

    def adjoint(coils: Any) -> Any:
        return np.sum(white.conj() * to_image(coils), axis=1)

    right = adjoint(data)
    if regularisation is None:
        energy = np.mean(np.abs(mvue(ksp, mps)) ** 2) / 2
        regularisation = 1 / float(energy) if energy > 0 else 1.0

    def normal(x: Any) -> Any:
        image = x.reshape(shape)
        coils = to_kspace(np.sum(white * image[:, None], axis=0)) * mask
        return (adjoint(coils) + np.float32(regularisation) * image).ravel()

    size = int(np.prod(shape))
    operator = LinearOperator((size, size), matvec=normal, dtype=np.complex64)
    solution, _ = cg(operator, right.ravel(), rtol=tolerance, maxiter=iterations)
    image: Image = solution.reshape(shape).astype(np.complex64)
    return image if mps.ndim == 4 else image[0]


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
    kspace: ArrayLike, maps: ArrayLike | None, noise_covariance: ArrayLike | None
) -> Image:
    """The image to send where posterior samples cannot be drawn; it always comes out finite.

    Regularised SENSE where there are coil maps (of several sets: their root sum of squares with
    the first one's phase), the root sum of squares otherwise. Samples that are not finite count
    as not measured.

    Parameters
    ----------
    kspace : (coil, y, x) complex, centred, zeros where not sampled
    maps : (coil, y, x) or (set, coil, y, x), or None
    noise_covariance : (coil, coil), or None to estimate it

    Returns
    -------
    (y, x) complex64
    """
    ksp = np.asarray(kspace, np.complex64)
    ksp = np.where(np.isfinite(ksp).all(axis=0), ksp, 0)
    if maps is None or not np.isfinite(maps).all() or not ksp.any():
        return root_sum_of_squares(ksp).astype(np.complex64)
    image = cg_sense(ksp, maps, noise_covariance)
    if image.ndim == 3:
        image = np.linalg.norm(image, axis=0) * np.exp(1j * np.angle(image[0]))
    return image.astype(np.complex64)
