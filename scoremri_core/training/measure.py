"""How good a denoiser is, for a prior's card."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremri_core.priors.base import Denoiser, denoise_with_variance
from scoremri_core.training.augment import training_patch
from scoremri_core.training.slices import Slice

logger = logging.getLogger(__name__)

RINGS = 16
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def denoiser_error(
    prior: Denoiser, slices: list[Slice], device: str = "cpu", size: int = 192, seed: int = 0
) -> dict[str, Any]:
    """How good the denoiser is at each noise level, and at each spatial frequency.

    Parameters
    ----------
    prior : the denoiser.
    slices : slices it was not trained on; at most 24 of them are used, spread evenly.
    device : where the prior is.

    Returns
    -------
    `denoiser_error`, for each noise level: sigma, the mean square error of each real component,
    the same over sigma^2, and the mean variance that the network predicted (or Stein's lemma
    found).

    `error_spectrum`: `sigmas`, `frequencies` (cycles per pixel, the centres of rings), and a row
    for each sigma of `mse`, the mean square error of each real component at that frequency, and of
    `power`, the power of the error in units of the predicted deviation, with mean 1 over k-space.
    """
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size),) * 2))
    ring = np.minimum((k / 0.5 * RINGS).astype(int), RINGS - 1).ravel()
    members = np.bincount(ring)

    def by_frequency(image: torch.Tensor) -> NDArray[Any]:
        power = torch.fft.fft2(image, norm="ortho").abs().square().mean(0)
        return np.bincount(ring, power.cpu().numpy().ravel()) / members

    table: list[dict[str, float]] = []
    spectrum: dict[str, list[Any]] = {
        "sigmas": list(LEVELS),
        "frequencies": (np.bincount(ring, k.ravel()) / members).round(4).tolist(),
        "mse": [],
        "power": [],
    }
    for sigma, residual, variance in _residuals(prior, slices, device, size, seed):
        mse = by_frequency(residual) / 2
        power = by_frequency(residual / variance.sqrt())
        error = float(mse @ members) / size**2
        table.append(
            {
                "sigma": sigma,
                "mse": error,
                "mse_over_sigma2": error / sigma**2,
                "predicted_variance": float(variance.mean()),
            }
        )
        spectrum["mse"].append([float(f"{value:.4g}") for value in mse])
        spectrum["power"].append((power / (power @ members) * size**2).round(4).tolist())
        logger.info(
            "sigma %(sigma).3f: error %(mse).3e, predicted %(predicted_variance).3e", table[-1]
        )
    return {"denoiser_error": table, "error_spectrum": spectrum}


def _residuals(
    prior: Denoiser, slices: list[Slice], device: str, size: int, seed: int
) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
    """Noise level, error of the denoised image and predicted variance, (slice, y, x)."""
    clean = torch.from_numpy(_patches(slices, size, seed))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=generator))
    clean, noise = clean.to(device), noise.to(device)
    for sigma in LEVELS:
        denoised, variance = denoise_with_variance(prior, clean, noise, sigma)
        yield sigma, denoised - clean, variance


def image_spectrum(slices: list[Slice], size: int = 192, seed: int = 0) -> dict[str, list[float]]:
    """Mean power spectrum of images.

    Returns
    -------
    `frequencies` (cycles per pixel, the centres of rings that widen from DC outwards) and
    `variance`, that of each real component of the images' orthonormal k-space there.
    """
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size),) * 2))
    # the innermost ring is DC and its neighbours
    edges = np.geomspace(1 / size, 0.5, 13)[1:-1]
    ring = np.searchsorted(edges, k.ravel(), "right")
    members = np.bincount(ring)
    kspace = np.fft.fft2(_patches(slices, size, seed), norm="ortho")
    power = np.mean(np.abs(kspace) ** 2, axis=0) / 2
    variance = np.bincount(ring, power.ravel()) / members
    centres = np.bincount(ring, k.ravel()) / members
    return {
        "frequencies": centres.round(4).tolist(),
        "variance": [float(f"{value:.4g}") for value in variance],
    }


def evenly_spaced(slices: list[Slice], count: int) -> list[Slice]:
    """So many slices, evenly from the middle of all."""
    chosen = np.linspace(0.15, 0.85, count) * (len(slices) - 1)
    return [slices[round(i)] for i in chosen]


def _patches(slices: list[Slice], size: int, seed: int) -> NDArray[np.complex64]:
    """Patches (slice, size, size) of at most 24 slices."""
    rng = np.random.default_rng(seed)
    return np.stack([training_patch(s.image, size, rng) for s in evenly_spaced(slices, 24)])
