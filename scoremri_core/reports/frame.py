"""One frame of a report: its pictures beside one another, and what is known of it."""

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

SIGNAL = 0.1  # of the brightest, from which a relative deviation is shown
OF_MAGNITUDE = "of the magnitude"


@dataclass(frozen=True)
class Shown:
    """A frame as a report shows it.

    Attributes
    ----------
    name : which frame it is.
    mean : (y, x) magnitude.
    std : (y, x) posterior standard deviation of the magnitude; None where it is not known.
    samples : (y, x) magnitudes.
    beside : images without a prior by their titles.
    geometry, facts : what is known of it.
    """

    name: str
    mean: Image
    std: Image | None = None
    samples: tuple[Image, ...] = ()
    beside: dict[str, Image] = field(default_factory=dict)
    geometry: Geometry = field(default_factory=Geometry)
    facts: Facts = field(default_factory=Facts)

    @cached_property
    def top(self) -> float:
        """The value that is shown white."""
        return pixels.brightest(self.mean)

    @cached_property
    def relative(self) -> Image | None:
        """Standard deviation over the mean; NaN where there is no signal to speak of."""
        if self.std is None:
            return None
        mean = np.asarray(self.mean, float)
        known = mean > SIGNAL * self.top
        return np.where(known, self.std / np.where(known, mean, 1), np.nan)

    @property
    def median_relative(self) -> str:
        """The median of `relative`, in percent."""
        if self.relative is None or not np.isfinite(self.relative).any():
            return "not known"
        return f"{np.nanmedian(self.relative):.1%}"


def section(shown: Shown, anchor: str) -> str:
    """A frame as HTML.

    Parameters
    ----------
    anchor : id of the section, which must be one word.
    """
    facts = shown.facts
    words = {
        "Plane": shown.geometry.plane,
        **_grid(shown),
        **facts.in_words(),
        "Relative sd": f"{shown.median_relative}: median where the mean is above "
        f"{SIGNAL:.0%} of the brightest",
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in words.items())
    notice = facts.notice()
    told = f'<p class="notice">{escape(notice)}</p>' if notice else ""
    return (
        f'<section id="{escape(anchor)}"><h2>{escape(shown.name)}</h2>{told}'
        f'<div class="figures">{"".join(figures(shown))}</div><dl>{rows}</dl></section>'
    )


def figures(shown: Shown) -> list[str]:
    """Mean, standard deviation (absolute and relative), samples, and what is beside."""
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
        note = f"grey: mean below {SIGNAL:.0%} of the brightest"
        percent = 100 * shown.relative
        drawn.append(_colours("Relative sd", shown, percent, share, view, "% of the mean", note))
    if shown.samples:
        drawn.append(_greys("Posterior samples", list(shown.samples), shown, view))
    drawn += [_greys(name, [image], shown, view) for name, image in shown.beside.items()]
    return drawn


def _greys(title: str, images: list[Image], shown: Shown, view: View) -> str:
    """All in the window of the mean."""
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
    title: str, shown: Shown, values: Image, top: float, view: View, unit: str, note: str
) -> str:
    picture = panel(pixels.colour(view.of(values), top), view, f"{title}, {shown.name}")
    return figure(title, [picture], scale(pixels.bar(True), top, unit), note)


def _grid(shown: Shown) -> dict[str, str]:
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
