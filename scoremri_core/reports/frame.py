"""One frame of a report: its images, parameters and quality."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.reports import pixels
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.geometry import Geometry, View
from scoremri_core.reports.panel import figure, panel, scale

Image = NDArray[Any]

MIN_SIGNAL = 0.1  # of the brightest pixels, for a relative standard deviation
OF_MAGNITUDE = "of the magnitude"


@dataclass(frozen=True)
class ReportFrame:
    """Frame of a report.

    Attributes
    ----------
    name : str
        Title.
    mean : float array, (y, x)
        Magnitude.
    std : float array, (y, x), or None
        Posterior standard deviation of the magnitude.
    samples : tuple of float array, (y, x)
        Magnitudes.
    reference_images : dict of str to float array, (y, x)
        Magnitudes of images without a prior, by title.
    geometry : Geometry
    facts : Facts
    """

    name: str
    mean: Image
    std: Image | None = None
    samples: tuple[Image, ...] = ()
    reference_images: dict[str, Image] = field(default_factory=dict)
    geometry: Geometry = field(default_factory=Geometry)
    facts: Facts = field(default_factory=Facts)

    @property
    def outputs(self) -> list[str]:
        """Names of the images."""
        optional = {"std": self.std is not None, "samples": bool(self.samples)}
        return ["mean", *(name for name, has in optional.items() if has), *self.reference_images]

    @cached_property
    def top(self) -> float:
        """Value of the pixels that are shown white."""
        return pixels.brightest(self.mean)

    @cached_property
    def relative(self) -> Image | None:
        """Standard deviation over mean; NaN without signal."""
        if self.std is None:
            return None
        mean = np.asarray(self.mean, float)
        known = mean > MIN_SIGNAL * self.top
        return np.where(known, self.std / np.where(known, mean, 1), np.nan)

    @property
    def median_relative(self) -> str:
        """Median of `relative`, in percent."""
        if self.relative is None or not np.isfinite(self.relative).any():
            return "unknown"
        return f"{np.nanmedian(self.relative):.1%}"


def section(shown: ReportFrame, anchor: str) -> str:
    """Format a frame as HTML.

    Parameters
    ----------
    shown : ReportFrame
    anchor : str
        Id of the section, one word.

    Returns
    -------
    str
    """
    facts = shown.facts
    words = {
        "Plane": shown.geometry.plane,
        **_grid(shown),
        **facts.in_words(),
        "Relative sd": f"{shown.median_relative}: median where the mean is above "
        f"{MIN_SIGNAL:.0%} of the brightest",
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in words.items())
    notice = facts.notice()
    warning = f'<p class="notice">{escape(notice)}</p>' if notice else ""
    return (
        f'<section id="{escape(anchor)}"><h2>{escape(shown.name)}</h2>{warning}'
        f'<div class="figures">{"".join(figures(shown))}</div><dl>{rows}</dl></section>'
    )


def figures(shown: ReportFrame) -> list[str]:
    """Draw mean, standard deviation (absolute and relative), samples and reference images.

    Parameters
    ----------
    shown : ReportFrame

    Returns
    -------
    list of str
        HTML figures.
    """
    view, facts = shown.geometry.view(), shown.facts
    title = "Posterior mean" if facts.sampled else "Classical image"
    drawn = [_greys(title, [shown.mean], shown, view)]
    if shown.std is not None:
        top = pixels.brightest(shown.std)
        drawn.append(
            _colours("Posterior sd", shown, shown.std, top, view, facts.unit, OF_MAGNITUDE)
        )
        assert shown.relative is not None
        share = min(pixels.brightest(100 * shown.relative), 100.0)
        note = f"grey: mean below {MIN_SIGNAL:.0%} of the brightest"
        percent = 100 * shown.relative
        drawn.append(_colours("Relative sd", shown, percent, share, view, "% of the mean", note))
    if shown.samples:
        drawn.append(_greys("Posterior samples", list(shown.samples), shown, view))
    drawn += [_greys(name, [image], shown, view) for name, image in shown.reference_images.items()]
    return drawn


def _greys(title: str, images: list[Image], shown: ReportFrame, view: View) -> str:
    """Draw images in the window of the mean."""
    count = len(images)
    panels = [
        panel(
            pixels.grey(view.of(image), shown.top),
            view,
            f"{title}{f', {i} of {count}' if count > 1 else ''}, {shown.name}",
            shown=i == 1,
        )
        for i, image in enumerate(images, start=1)
    ]
    legend = scale(pixels.bar(False), shown.top, shown.facts.unit, window=True)
    return figure(title, panels, legend)


def _colours(
    title: str, shown: ReportFrame, values: Image, top: float, view: View, unit: str, note: str
) -> str:
    picture = panel(pixels.colour(view.of(values), top), view, f"{title}, {shown.name}")
    return figure(title, [picture], scale(pixels.bar(True), top, unit), note)


def _grid(shown: ReportFrame) -> dict[str, str]:
    ny, nx = shown.mean.shape
    fx, fy, fz = shown.geometry.field_of_view
    words = {
        "Matrix": f"{nx} x {ny} pixels (readout x phase encode) of {fx / nx:.2f} x {fy / ny:.2f} "
        f"mm; field of view {fx:.4g} x {fy:.4g} mm, {fz:.3g} mm thick"
    }
    if shown.geometry.position is not None and shown.geometry.known:
        x, y, z = shown.geometry.position
        words["Centre"] = (
            f"{abs(x):.1f} mm {'R' if x < 0 else 'L'}, {abs(y):.1f} mm {'A' if y < 0 else 'P'}, "
            f"{abs(z):.1f} mm {'F' if z < 0 else 'H'} of the isocentre"
        )
    return words
