"""Pictures of a reconstruction beside the truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = ("Reference", "L1-wavelet", "Posterior mean", "Posterior sd", "Error")
TALLEST = 60000  # pixels of a picture, which the PNG writer can do


@dataclass(frozen=True)
class Panels:
    """A row of images (y, x), one for each of PANELS, and what is written above it."""

    title: str
    images: tuple[npt.NDArray[Any], ...]


def comparison(
    path: str | os.PathLike[str],
    truth: npt.NDArray[Any],
    zero_filled: npt.NDArray[Any],
    mean: npt.NDArray[Any],
    std: npt.NDArray[Any],
    title: str = "",
) -> None:
    """Draw zero-filled, posterior mean, uncertainty and true error side by side.

    The two images share one grey window; uncertainty and error share one colour scale.

    Parameters
    ----------
    path : PNG to write
    truth, zero_filled, mean : (y, x) images, of which the magnitude is shown
    std : (y, x) posterior standard deviation of the complex value, both components together, which
        is about sqrt(2) that of the magnitude where there is signal
    title : above the panels
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from scoremri_core.evaluation.metrics import psnr

    truth, zero_filled, mean = abs(truth), abs(zero_filled), abs(mean)
    error = abs(mean - truth)
    window = float(np.percentile(truth, 99.8))
    top = float(np.percentile(np.maximum(error, np.nan_to_num(std)), 99.8)) or 1.0
    height, width = truth.shape
    size = 3.4 * min(max(height / width, 0.5), 2)
    figure = Figure(figsize=(15.4, size + 1.1), dpi=110, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, image, name in (
        (axes[0], zero_filled, f"Zero-filled\nPSNR {psnr(zero_filled, truth):.1f} dB"),
        (axes[1], mean, f"Posterior mean\nPSNR {psnr(mean, truth):.1f} dB"),
    ):
        grey = axis.imshow(image, cmap="gray", vmin=0, vmax=window, interpolation="nearest")
        axis.set_title(name)
    for axis, image, name in (
        (axes[2], std, f"Uncertainty\nposterior sd (complex), rms {rms(std):.3g}"),
        (axes[3], error, f"True error\nof the magnitude, rms {rms(error):.3g}"),
    ):
        colour = axis.imshow(image, cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(name)
    for axis in axes:
        axis.set_axis_off()
    figure.colorbar(grey, ax=axes[:2], shrink=0.86, pad=0.01, label="signal")
    figure.colorbar(colour, ax=axes[2:], shrink=0.86, pad=0.01, label="signal", extend="max")
    figure.suptitle(title)
    FigureCanvasAgg(figure).print_png(os.fspath(path))


def table_of_images(path: str | os.PathLike[str], rows: Sequence[Panels]) -> None:
    """Draw a row of PANELS for each scan, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure_of_images(rows)).print_png(os.fspath(path))


def figure_of_images(rows: Sequence[Panels]) -> Figure:
    """The figure of `table_of_images`.

    The three images of a row share one grey window; sd and error share one colour scale.
    """
    from matplotlib.figure import Figure

    width = 3.0 * len(PANELS)
    heights = [2.8 * min(max(np.divide(*row.images[0].shape), 0.5), 2) + 0.7 for row in rows]
    dpi = min(100, TALLEST / sum(heights))
    figure = Figure((width, sum(heights)), dpi, facecolor="white", layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        *greys, std, error = (abs(image) for image in row.images)
        window = float(np.percentile(greys[0], 99.8))
        top = float(np.percentile(np.maximum(error, np.nan_to_num(std)), 99.8)) or 1.0
        axes = part.subplots(1, len(PANELS))
        for axis, image, name in zip(axes, (*greys, std, error), PANELS, strict=True):
            grey = len(PANELS) - 2 > PANELS.index(name)
            axis.imshow(
                image,
                cmap="gray" if grey else "inferno",
                vmin=0,
                vmax=window if grey else top,
                interpolation="nearest",
            )
            axis.set_title(name if grey else f"{name}, rms {rms(image):.3g}", fontsize=9)
            axis.set_axis_off()
        part.suptitle(row.title, fontsize=10)
    return figure


def rms(x: npt.NDArray[Any]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))
