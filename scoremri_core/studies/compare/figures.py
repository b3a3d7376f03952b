"""The papers' figures from rows and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.score.intervals import interval
from scoremri_core.studies.compare.scores import TrialScore
from scoremri_core.studies.compare.trials import SHIFTS
from scoremri_core.studies.evaluate.pictures import rms, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_GAIN = 4  # errors are drawn so many times as bright as the image
ZOOM = 0.3  # side of the detail, of the image's
FRAME_MS = 150
GIF_SIDE = 256


def curves(rows: Sequence[TrialScore], methods: Sequence[str]) -> Figure:
    """PSNR and SSIM over the true acceleration, with 95 % bands (Jalal et al. 2021, Fig. 2)."""
    figure = _figure(11, 4.2)
    inside = [row for row in rows if row.shift in SHIFTS[:2] and not row.error]
    for axis, (score, name) in zip(
        figure.subplots(1, 2), (("psnr", "PSNR (dB)"), ("ssim", "SSIM")), strict=True
    ):
        for number, method in enumerate(methods):
            groups: dict[float, list[tuple[float, float]]] = {}
            for row in inside:
                if row.method == method:
                    groups.setdefault(row.acceleration, []).append(
                        (row.true_acceleration, getattr(row, score))
                    )
            points = sorted(
                (*np.mean(group, axis=0), interval([value for _, value in group]))
                for group in groups.values()
            )
            if not points:
                continue
            x, y, reach = np.array(points).T
            colour = f"C{number}"
            axis.plot(x, y, "o-", color=colour, label=method, markersize=4)
            reach = np.nan_to_num(reach)
            axis.fill_between(x, y - reach, y + reach, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("true acceleration")
        axis.set_ylabel(f"{name}, masked, against the MVUE")
        axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def panels(
    shown: Sequence[tuple[str, NDArray[Any], Mapping[str, NDArray[Any]]]],
) -> Figure:
    """Images of every method and their errors, a pair of rows for each shift (Fig. 3).

    Parameters
    ----------
    shown : title, reference (y, x) and images by method of each shift
    """
    columns = ["reference", *shown[0][2]]
    heights = [2 * 1.8 * np.divide(*truth.shape) + 0.5 for _, truth, _ in shown]
    figure = _figure(1.8 * len(columns), sum(heights))
    parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (title, reference, images) in zip(parts, shown, strict=True):
        axes = part.subplots(2, len(columns))
        truth = np.abs(reference)
        window = float(np.percentile(truth, 99.8))
        for column, name in enumerate(columns):
            top, bottom = axes[:, column]
            for axis in (top, bottom):
                axis.set_axis_off()
            if name != "reference" and name not in images:
                continue
            image = truth if name == "reference" else np.abs(images[name])
            top.imshow(image, cmap="gray", vmin=0, vmax=window, interpolation="nearest")
            top.set_title(name, fontsize=8)
            if name != "reference":
                bottom.imshow(
                    np.abs(image - truth),
                    cmap="inferno",
                    vmin=0,
                    vmax=window / ERROR_GAIN,
                    interpolation="nearest",
                )
        part.suptitle(f"{title}; errors x {ERROR_GAIN}", fontsize=9)
    return figure


def uncertainty(
    reference: NDArray[Any], samples: NDArray[Any], effective_samples: float | None = None
) -> Figure:
    """Mean, standard deviation and error of many samples (Jalal et al. 2021, Fig. 4).

    Standard deviation and error are those of the magnitude.
    """
    mean = samples.mean(0)
    sd = np.abs(samples).std(0, ddof=len(samples) / (effective_samples or len(samples)))
    error = np.abs(np.abs(mean) - np.abs(reference))
    window = float(np.percentile(np.abs(reference), 99.8))
    top = float(np.percentile(np.maximum(error, sd), 99.8)) or 1.0
    figure = _figure(13, 3.6 * max(0.6, np.divide(*reference.shape)))
    for axis, (name, image, grey) in zip(
        figure.subplots(1, 4),
        (
            ("reference", np.abs(reference), True),
            (f"mean of {len(samples)} samples", np.abs(mean), True),
            (f"sd of the magnitude, rms {rms(sd):.3g}", sd, False),
            (f"error of the magnitude, rms {rms(error):.3g}", error, False),
        ),
        strict=True,
    ):
        show(axis, image, window if grey else top, grey)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    return figure


def zoomed(
    reference: NDArray[Any], zero_filled: NDArray[Any], samples: NDArray[Any], count: int = 3
) -> Figure:
    """Zero-filled, mean and samples with a detail of each (Ramzi et al. 2020, Figs. 1 and 2).

    The detail is where the samples differ most.
    """
    images = {
        "reference": reference,
        "zero-filled": zero_filled,
        "mean": samples.mean(0),
        **{f"sample {i + 1}": sample for i, sample in enumerate(samples[:count])},
    }
    box = most_uncertain(samples)
    window = float(np.percentile(np.abs(reference), 99.8))
    figure = _figure(2.1 * len(images), 4.6)
    axes = figure.subplots(2, len(images))
    for column, (name, image) in zip(axes.T, images.items(), strict=True):
        for axis, part in zip(column, (image, image[box]), strict=True):
            axis.imshow(np.abs(part), cmap="gray", vmin=0, vmax=window, interpolation="nearest")
            axis.set_axis_off()
        rows, columns = box
        corner = columns.start, rows.start
        sides = columns.stop - columns.start, rows.stop - rows.start
        _outline(column[0], corner, *sides)
        column[0].set_title(name, fontsize=9)
    return figure


def most_uncertain(samples: NDArray[Any]) -> tuple[slice, slice]:
    """The window of ZOOM of the image in which the samples' variance is greatest."""
    variance = np.abs(samples).var(0)
    sides = [max(2, round(ZOOM * n)) for n in variance.shape]
    # sums over all windows by differences of cumulative sums
    total = np.pad(variance, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    a, b = sides
    windows = total[a:, b:] - total[:-a, b:] - total[a:, :-b] + total[:-a, :-b]
    y, x = np.unravel_index(int(windows.argmax()), windows.shape)
    return slice(int(y), int(y) + a), slice(int(x), int(x) + b)


def animation(path: Path, samples: NDArray[Any]) -> None:
    """An animated GIF that shows the magnitudes of posterior samples one after the other."""
    from PIL import Image

    magnitudes = np.abs(samples)
    window = float(np.percentile(magnitudes, 99.8)) or 1.0
    enlarged = max(1, round(GIF_SIDE / max(magnitudes.shape[1:])))
    frames = [
        Image.fromarray(np.uint8(255 * np.clip(m / window, 0, 1))).resize(
            (enlarged * m.shape[1], enlarged * m.shape[0]), Image.Resampling.NEAREST
        )
        for m in magnitudes
    ]
    # each frame replaces the last; equal ones are not to be merged
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, disposal=2
    )


def save(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from scoremri_core.paths import replacing

    with replacing(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), 110, facecolor="white", layout="constrained")


def _outline(axis: Any, corner: tuple[int, int], width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="yellow", linewidth=1))
