"""One frame of a report: its images, parameters and quality."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.reports.facts import Facts
from scoremri_core.reports.geometry import Geometry
from scoremri_core.reports.pixels import brightest, encode

Image = NDArray[Any]

MIN_SIGNAL = 0.1  # of the brightest pixels, for a relative standard deviation
REFERENCES = {"zero_filled": "Zero-filled", "classical": "Classical (regularised SENSE)"}


@dataclass(frozen=True)
class Panel:
    """Images of one kind, of which the viewer shows one at a time.

    Attributes
    ----------
    title : str
    images : tuple of float array, (y, x)
        Of equal shape.
    window : tuple of float
        Values shown black and white, or in the first and last colour.
    unit : str
    kind : {"grey", "colour"}
        Panels of a kind share changes of the window.
    note : str
    """

    title: str
    images: tuple[Image, ...]
    window: tuple[float, float]
    unit: str = ""
    kind: str = "grey"
    note: str = ""


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
        Magnitudes of other reconstructions in the unit of the mean, by title.
    others : tuple of Panel
        Further images.
    geometry : Geometry
    facts : Facts
    """

    name: str
    mean: Image
    std: Image | None = None
    samples: tuple[Image, ...] = ()
    reference_images: dict[str, Image] = field(default_factory=dict)
    others: tuple[Panel, ...] = ()
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
        return brightest(self.mean)

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

    def in_words(self) -> dict[str, str]:
        """Describe geometry and facts.

        Returns
        -------
        dict
            Descriptions by topic.
        """
        return {
            "Plane": self.geometry.plane,
            **self._grid(),
            **self.facts.in_words(),
            "Relative sd": f"{self.median_relative}: median where the mean is above "
            f"{MIN_SIGNAL:.0%} of the brightest",
        }

    def panels(self) -> list[Panel]:
        """List the images.

        Returns
        -------
        list of Panel
            Mean, standard deviation (absolute and relative), samples and other images.
        """
        unit, window = self.facts.unit, (0.0, self.top)
        title = "Posterior mean" if self.facts.sampled else "Classical image"
        panels = [Panel(title, (self.mean,), window, unit)]
        if self.std is not None and self.relative is not None:
            top = brightest(self.std)
            note = "of the magnitude"
            panels.append(Panel("Posterior sd", (self.std,), (0.0, top), unit, "colour", note))
            share = 100 * self.relative
            top = min(brightest(share), 100.0)
            note = f"grey: mean below {MIN_SIGNAL:.0%} of the brightest"
            panels.append(
                Panel("Relative sd", (share,), (0.0, top), "% of the mean", "colour", note)
            )
        if self.samples:
            panels.append(Panel("Posterior samples", self.samples, window, unit))
        panels += [Panel(k, (image,), window, unit) for k, image in self.reference_images.items()]
        return [*panels, *self.others]

    def as_json(self) -> dict[str, Any]:
        """Encode the frame for the viewer.

        Returns
        -------
        dict
            Images in radiological orientation.
        """
        view = self.geometry.view()
        return {
            "name": self.name,
            "notice": self.facts.notice(),
            "words": self.in_words(),
            "size": view.size,
            "edges": view.edges,
            "encode": view.phase_encode,
            "flips": (view.transposed, view.left_right, view.up_down),
            "panels": [
                {
                    "title": panel.title,
                    "window": panel.window,
                    "unit": panel.unit,
                    "kind": panel.kind,
                    "note": panel.note,
                    "shape": view.of(panel.images[0]).shape,
                    "images": [
                        encode(view.of(image), panel.window[1] - panel.window[0])
                        for image in panel.images
                    ],
                }
                for panel in self.panels()
            ],
        }

    def _grid(self) -> dict[str, str]:
        ny, nx = self.mean.shape
        fx, fy, fz = self.geometry.field_of_view
        words = {
            "Matrix": f"{nx} x {ny} pixels (readout x phase encode) of {fx / nx:.2f} x "
            f"{fy / ny:.2f} mm; field of view {fx:.4g} x {fy:.4g} mm, {fz:.3g} mm thick"
        }
        if self.geometry.position is not None and self.geometry.known:
            x, y, z = self.geometry.position
            words["Centre"] = (
                f"{abs(x):.1f} mm {'R' if x < 0 else 'L'}, {abs(y):.1f} mm "
                f"{'A' if y < 0 else 'P'}, {abs(z):.1f} mm {'F' if z < 0 else 'H'} of the isocentre"
            )
        return words
