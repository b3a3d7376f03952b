"""Pictures of reconstructions and their references."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scoremri_core.reports.geometry import Geometry, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = ("Reference", "L1-wavelet", "Posterior mean", "Posterior sd", "Error")
MAX_HEIGHT = 60000  # pixels, the limit of the PNG writer


@dataclass(frozen=True)
class Panels:
    """A row of images (y, x), one for each of PANELS, and its title."""

    title: str
    images: tuple[npt.NDArray[Any], ...]


def comparison(
    path: str | os.PathLike[str],
    truth: npt.NDArray[Any],
    zero_filled: npt.NDArray[Any],
    mean: npt.NDArray[Any],
    std: npt.NDArray[Any],
    title: str = "",
    *,
    sample: npt.NDArray[Any] | None = None,
    geometry: Geometry | None = None,
    unit: str = "units of k-space",
) -> None:
    """Draw truth, zero-filled image and posterior mean, a sample, uncertainty and true error.

    The images share one grey window; sd and error of the magnitude share one colour scale.

    Parameters
    ----------
    path : path-like
        PNG to write.
    truth, zero_filled, mean : array, (y, x)
        Drawn by magnitude.
    std : real array, (y, x)
        Posterior sd of the magnitude.
    title : str, optional
    sample : array, (y, x), optional
        Posterior sample, drawn by magnitude.
    geometry : Geometry, optional
        For the orientation, its letters and a scale bar.
    unit : str, optional
        Of all values.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from scoremri_core.score.metrics import psnr

    truth, zero_filled, mean = abs(truth), abs(zero_filled), abs(mean)
    error = abs(mean - truth)
    window = float(np.percentile(truth, 99.8))
    top = float(np.percentile(np.maximum(error, np.nan_to_num(std)), 99.8)) or 1.0
    view = (Geometry() if geometry is None else geometry).view()
    height, width = view.of(truth).shape if geometry is None else view.size[::-1]
    size = 4.2 * min(max(height / width, 0.5), 2)
    figure = Figure((14.6, 2 * size + 1.9), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots(2, 3)
    greys = [
        ("Truth", truth),
        (f"Zero-filled, PSNR {psnr(zero_filled, truth):.1f} dB", zero_filled),
        (f"Posterior mean, PSNR {psnr(mean, truth):.1f} dB", mean),
        ("One posterior sample", None if sample is None else abs(sample)),
    ]
    colours = [
        (f"Posterior sd of the magnitude, rms {rms(std):.3g}", std),
        (f"True error of the magnitude, rms {rms(error):.3g}", error),
    ]
    drawn: Any = None
    for axis, (name, image) in zip(axes.flat, greys + colours, strict=True):
        axis.set_axis_off()
        if image is None:
            continue
        grey = (name, image) in greys
        drawn = axis.imshow(
            view.of(image),
            cmap="gray" if grey else "inferno",
            vmin=0,
            vmax=window if grey else top,
            interpolation="nearest",
            extent=None if geometry is None else (0, width, height, 0),
        )
        axis.set_title(name)
        if geometry is not None:
            _around(axis, view)
        if name.startswith("Posterior mean"):
            figure.colorbar(drawn, ax=axes[0], shrink=0.9, pad=0.01, label=unit)
    figure.colorbar(drawn, ax=axes[1], shrink=0.9, pad=0.01, label=unit, extend="max")
    figure.suptitle(title)
    FigureCanvasAgg(figure).print_png(os.fspath(path))


def _around(axis: Any, view: View) -> None:
    """Draw the patient's directions and a scale bar, on axes in mm."""
    places = {"left": (0.03, 0.5), "right": (0.97, 0.5), "top": (0.5, 0.96), "bottom": (0.5, 0.04)}
    style = {"color": "white", "ha": "center", "va": "center", "fontsize": 11}
    for edge, letters in view.edges.items():
        axis.text(*places[edge], letters, transform=axis.transAxes, **style)
    start, bottom = 0.04 * view.size[0], 0.96 * view.size[1]
    axis.plot([start, start + view.bar], [bottom, bottom], color="white", linewidth=2)
    axis.text(start, bottom - 0.02 * view.size[1], f"{view.bar} mm", color="white", va="bottom")


def table_of_images(path: str | os.PathLike[str], rows: Sequence[Panels]) -> None:
    """Draw a row of PANELS for each scan, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure_of_images(rows)).print_png(os.fspath(path))


def figure_of_images(rows: Sequence[Panels]) -> Figure:
    """Return the figure of `table_of_images`.

    The three images of a row share one grey window; sd and error share one colour scale.
    """
    from matplotlib.figure import Figure

    width = 3.0 * len(PANELS)
    heights = [2.8 * min(max(np.divide(*row.images[0].shape), 0.5), 2) + 0.7 for row in rows]
    dpi = min(100, MAX_HEIGHT / sum(heights))
    figure = Figure((width, sum(heights)), dpi, facecolor="white", layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        *greys, std, error = (abs(image) for image in row.images)
        window = float(np.percentile(greys[0], 99.8))
        top = float(np.percentile(np.maximum(error, np.nan_to_num(std)), 99.8)) or 1.0
        axes = part.subplots(1, len(PANELS))
        for axis, image, name in zip(axes, (*greys, std, error), PANELS, strict=True):
            grey = len(PANELS) - 2 > PANELS.index(name)
            show(axis, image, window if grey else top, grey)
            axis.set_title(name if grey else f"{name}, rms {rms(image):.3g}", fontsize=9)
            axis.set_axis_off()
        part.suptitle(row.title, fontsize=10)
    return figure


def rms(x: npt.NDArray[Any]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def show(axis: Any, image: npt.NDArray[Any], top: float, grey: bool) -> None:
    """Draw magnitudes from 0 to `top`: images in grey, sd and errors in colour."""
    cmap = "gray" if grey else "inferno"
    axis.imshow(image, cmap=cmap, vmin=0, vmax=top, interpolation="nearest")
