"""What a run looks like at each checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremri_core.paths import replacing
from scoremri_core.priors.base import denoise_with_variance
from scoremri_core.training.augment import training_patch
from scoremri_core.training.card import as_prior
from scoremri_core.training.measure import evenly_spaced
from scoremri_core.training.settings import Network
from scoremri_core.training.slices import Slice

LEVELS = (0.05, 0.2, 0.8)
UNIT = (
    "Magnitudes from 0 to 1.3, where the 99th percentile of an image is about 1; sd of each real "
    "component of the noise; mean square error of each over that sd squared."
)


class Monitor:
    """Denoises the same validation patches whenever it is called, and draws them.

    Parameters
    ----------
    slices : validation slices, of which a few are used.
    size : side of the patches.
    path : PNG, replaced each time.
    """

    def __init__(self, slices: list[Slice], size: int, path: Path, count: int = 4) -> None:
        rng = np.random.default_rng(0)
        patches = [training_patch(s.image, size, rng) for s in evenly_spaced(slices, count)]
        self.clean = torch.from_numpy(np.stack(patches))
        noise = rng.standard_normal((*self.clean.shape, 2), dtype=np.float32)
        self.noise = torch.view_as_complex(torch.from_numpy(noise))
        self.path = path

    def __call__(self, model: Network) -> dict[str, float]:
        """Draw; returns the mean square error over sigma^2, mean over three noise levels."""
        prior = as_prior(model)
        device = next(model.parameters()).device
        clean, noise = self.clean.to(device), self.noise.to(device)
        errors, columns = [], {"validation patch": self.clean}
        for sigma in LEVELS:
            denoised = denoise_with_variance(prior, clean, noise, sigma)[0]
            errors.append(float((denoised - clean).abs().square().mean()) / 2 / sigma**2)
            columns[f"noise of sd {sigma:g}"] = (clean + sigma * noise).cpu()
            columns[f"denoised, error {errors[-1]:.3f}"] = denoised.cpu()
        with replacing(self.path) as partial:
            _draw(partial, {name: np.abs(x.numpy()) for name, x in columns.items()})
        return {"validation_error": round(float(np.mean(errors)), 5)}


def _draw(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """One row a patch, one column a name, all in one grey window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(next(iter(columns.values())))
    size = (2 * len(columns), 2 * rows + 0.6)
    figure = Figure(figsize=size, dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(UNIT, fontsize=9)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=9)
        for axis, image in zip(axes[:, column], images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1.3, interpolation="nearest")
            axis.set_axis_off()
    FigureCanvasAgg(figure).print_png(str(path))
