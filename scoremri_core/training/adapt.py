"""Fit a prior to the images of a site."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.priors.base import Denoiser, denoise, denoise_with_variance
from scoremri_core.priors.storage import read_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.recon.reconstruction import reconstruct
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.gridding import gridded
from scoremri_core.training import loop
from scoremri_core.training.augment import training_patch
from scoremri_core.training.card import as_prior, write_prior
from scoremri_core.training.manifest import Source
from scoremri_core.training.measure import evenly_spaced
from scoremri_core.training.settings import Network, Settings
from scoremri_core.training.slices import Slice

logger = logging.getLogger(__name__)

BEST = "best.pt"  # checkpoint of the least error on held-back patches
LEVELS = (0.03, 0.1, 0.3, 1.0)  # noise levels of the error
PATCHES = 12  # held-back patches
PATIENCE = 6  # checkpoints without a smaller error
LEAST_GAIN = 0.01  # of the error; below it the prior is not written
DRAWN = "drawn"  # subject of images that the initial prior drew
DRAWN_SHARE = 0.25  # of the training patches
STEPS = 100_000  # upper bound


@dataclass
class HeldBack:
    """Error of denoisers on the same patches: mean square over sigma^2, geometric mean of levels.

    Parameters
    ----------
    slices : list of Slice
    size : int
        Side of the patches.
    """

    slices: list[Slice]
    size: int
    _clean: torch.Tensor = field(init=False)
    _noise: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        chosen = evenly_spaced(self.slices, min(PATCHES, 4 * len(self.slices)))
        patches = np.stack([training_patch(s.image, self.size, rng) for s in chosen])
        noise = rng.standard_normal((*patches.shape, 2), dtype=np.float32)
        self._clean = torch.from_numpy(patches)
        self._noise = torch.view_as_complex(torch.from_numpy(noise))

    def error(self, prior: Denoiser, device: str) -> float:
        """Return the error of a prior."""
        clean, noise = self._clean.to(device), self._noise.to(device)
        errors = []
        for sigma in LEVELS:
            denoised, _ = denoise_with_variance(prior, clean, noise, sigma)
            errors.append(float((denoised - clean).abs().square().mean()) / 2 / sigma**2)
        return float(np.exp(np.mean(np.log(errors))))


@dataclass(frozen=True)
class Adaptation:
    """Errors of the initial and of the adapted prior (see `HeldBack`).

    Attributes
    ----------
    held_back : tuple of float
        Before and after, on subjects that were held back.
    drawn : tuple of float
        Before and after, on images drawn from the initial prior.
    steps : int
        Of the weights that are kept.
    """

    held_back: tuple[float, float]
    drawn: tuple[float, float]
    steps: int

    def __str__(self) -> str:
        return (
            f"denoising error on held-back subjects {_change(*self.held_back)}, "
            f"on images of the initial prior {_change(*self.drawn)}"
        )


def adapt(
    slices: list[Slice],
    held_back: list[Slice],
    folder: Path,
    settings: Settings,
    seconds: float,
    progress: Callable[[float, str], None] = lambda seconds, note: None,
) -> Adaptation:
    """Train a prior further on the images of a site; the best weights are in `folder/best.pt`.

    Patches of the site's images are mixed with patches of images that the initial prior drew, so
    that it does not forget what it knows (generative replay [1]_). Ends after `seconds`, or once
    the error on the held-back images has not decreased for some checkpoints. A run in the same
    folder is resumed.

    Parameters
    ----------
    slices, held_back : list of Slice
        Images to train on, and images of other subjects.
    folder : Path
    settings : Settings
        See `settings_for`.
    seconds : float
        Longest duration.
    progress : callable, optional
        Called after each step with the seconds passed and a note.

    Returns
    -------
    Adaptation

    Raises
    ------
    InputError
        The error on the held-back images decreased by less than 1 %.

    References
    ----------
    .. [1] Shin H et al. Continual learning with deep generative replay. NeurIPS (2017).
    """
    started = time.monotonic()
    initial = read_prior(settings.start or "").to(torch.device(settings.device))
    images = draw_images(initial, 24, settings.patch, settings.device)
    replay = [Slice(image, DRAWN, "") for image in images]
    held, drawn = HeldBack(held_back, settings.patch), HeldBack(replay[::2], settings.patch)
    before = held.error(initial, settings.device), drawn.error(initial, settings.device)
    total = sum(s.weight for s in slices)
    weight = DRAWN_SHARE / (1 - DRAWN_SHARE) * total / len(replay)
    mixed = slices + [replace(s, weight=weight) for s in replay]

    errors = _logged_errors(folder)

    def at_checkpoint(average: Network) -> dict[str, float]:
        prior = as_prior(average)
        after = held.error(prior, settings.device), drawn.error(prior, settings.device)
        if after[0] < min((e[0] for e in errors), default=before[0]):
            shutil.copyfile(folder / loop.CHECKPOINT, folder / BEST)
        errors.append(after)
        logger.info("held-back error %.4f (%s)", after[0], _change(before[0], after[0]))
        return {"held_back_error": after[0], "drawn_error": after[1]}

    def done() -> bool:
        best = int(np.argmin([e[0] for e in errors]))
        return len(errors) - best > PATIENCE or time.monotonic() - started > seconds

    loop.train(
        mixed,
        folder,
        settings,
        lambda step, loss: progress(time.monotonic() - started, f"step {step}, loss {loss:.4f}"),
        at_checkpoint,
        done=done,
    )
    best = min(errors)
    if best[0] > (1 - LEAST_GAIN) * before[0]:
        raise InputError(
            f"denoising error on held-back subjects {before[0]:.4f} before, {best[0]:.4f} after: "
            f"expected a decrease of {LEAST_GAIN:.0%}; the prior was not written"
        )
    steps = (errors.index(best) + 1) * settings.checkpoint_every
    return Adaptation((before[0], best[0]), (before[1], best[1]), steps)


def settings_for(start: str, slices: Sequence[Slice], device: str, seed: int = 0) -> Settings:
    """Return the settings of an adaptation: small steps from the weights of a prior.

    Raises
    ------
    InputError
        Not a prior, or not one of the architecture unet.
    """
    model = read_prior(start).model
    if not isinstance(model, DenoisingUnet):
        raise InputError(f"prior {start!r}: expected one of the architecture unet")
    side = max(64, min(128, min(min(s.image.shape) for s in slices)))
    return Settings(
        steps=STEPS,
        batch=8,
        patch=side // model.multiple * model.multiple,
        learning_rate=2e-4,
        ema_decay=0.995,
        schedule="constant",
        seed=seed,
        device=device,
        checkpoint_every=50,
        channels=tuple(model.config["channels"]),
        blocks=tuple(model.config["blocks"]),
        start=start,
    )


@torch.no_grad()
def draw_images(
    prior: Denoiser, count: int, size: int, device: str = "cpu", levels: int = 24, seed: int = 0
) -> NDArray[np.complex64]:
    """Draw images from a prior by Euler steps of the probability-flow ODE [1]_.

    Parameters
    ----------
    prior : Denoiser
    count, size : int
        Number of images and their side in pixels.
    device : str, optional
    levels : int, optional
        Noise levels, from 5 to 0.01 in geometric progression.
    seed : int, optional

    Returns
    -------
    complex64 array, (count, size, size)
        99th percentile of the magnitude 1.

    References
    ----------
    .. [1] Karras T et al. Elucidating the design space of diffusion models. NeurIPS (2022).
    """
    generator = torch.Generator().manual_seed(seed)
    sigmas = [*np.geomspace(5, 0.01, levels), 0.0]
    noise = torch.randn(count, size, size, 2, generator=generator)
    x = sigmas[0] * torch.view_as_complex(noise).to(device)
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(prior, x, float(sigma))
        x = denoised + lower / sigma * (x - denoised)
    images: NDArray[np.complex64] = x.cpu().numpy()
    scale = np.percentile(np.abs(images), 99, axis=(1, 2), keepdims=True)
    return np.asarray(images / scale, np.complex64)


def sampled_slices(
    sources: Sequence[Source],
    prior: str,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
    samples: int = 2,
) -> list[Slice]:
    """Draw posterior samples of accelerated scans, as training images.

    Training on the samples of a prior, which agree with the measurements, is a step of expectation
    maximisation [1]_.

    Parameters
    ----------
    sources : sequence of Source
        Raw data of 2D scans.
    prior : str
        Name or path.
    device : str, optional
    progress : callable, optional
        Called after each file with the number of files done.
    samples : int, optional
        Samples of each slice.

    Returns
    -------
    list of Slice
        Without slices that could not be sampled.

    Raises
    ------
    InputError
        A file that cannot be read; no slice that could be sampled.

    References
    ----------
    .. [1] Rozet F et al. Learning diffusion priors from observations by expectation maximization.
       NeurIPS (2024).
    """
    denoiser = read_prior(prior)
    slices = []
    for done, source in enumerate(sources, 1):
        with open_any(source.path, source.dataset or "dataset") as scan:
            frames = gridded(scan)
        for frame in frames:
            result = reconstruct(
                frame.array,
                noise_covariance=frame.noise_covariance,
                prior=denoiser,
                samples=samples,
                device=device,
            )
            if result.info.reason:
                logger.warning("%s: a slice is not used: %s", source.path, result.info.reason)
                continue
            for sample in result.samples[0]:
                image = (sample / np.percentile(np.abs(sample), 99)).astype(np.complex64)
                slices.append(Slice(image, source.subject, source.contrast, source.weight))
        progress(done)
    if not slices:
        raise InputError(f"{sources[0].path}: no slice could be sampled")
    return slices


def write_adapted(folder: Path, path: Path, sources: Sequence[Source], outcome: Adaptation) -> None:
    """Write the best weights of an adaptation as a prior."""
    write_prior(
        folder / BEST,
        path,
        sources,
        {
            "description": "Denoiser fitted to the images of a site.",
            "adaptation": {
                "held_back_error": outcome.held_back,
                "drawn_error": outcome.drawn,
                "steps": outcome.steps,
            },
        },
    )


def _logged_errors(folder: Path) -> list[tuple[float, float]]:
    log = folder / loop.LOG
    lines: list[Any] = log.read_text().splitlines() if log.is_file() else []
    records = [json.loads(line) for line in lines]
    return [(r["held_back_error"], r["drawn_error"]) for r in records]


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %"
