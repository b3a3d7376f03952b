"""Images as compressed numbers, for the viewer of a page."""

from __future__ import annotations

import base64
import zlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = "inferno"  # perceptually uniform, also in grey print
MISSING = 65_535  # code of values that are not finite
LEVELS = 2000  # of a window


def encode(values: NDArray[Any], window: float) -> dict[str, Any]:
    """Encode an image, each value within 1/4000 of the window unless its range exceeds 32 windows.

    Parameters
    ----------
    values : float array, (y, x)
    window : float
        Width of the window that shows the image.

    Returns
    -------
    dict
        `data`: base64 of a zlib stream of the low bytes and then the high bytes of codes (uint16,
        65535 for values that are not finite); value = `lowest` + code * `step`.
    """
    known = np.isfinite(values)
    finite = np.where(known, values, 0.0).astype(float)
    lowest = min(float(finite.min()), 0.0)
    step = max(window / LEVELS, (float(finite.max()) - lowest) / (MISSING - 1))
    codes = np.where(known, np.rint((finite - lowest) / step), MISSING).astype("<u2")
    planes = codes.reshape(-1, 1).view(np.uint8).T  # compress better apart
    data = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()
    return {"data": data, "lowest": lowest, "step": step}


@cache
def palette() -> str:
    """Return the colours of 255 levels as base64 of RGB bytes."""
    from matplotlib import colormaps

    colours = colormaps[COLOURS](np.linspace(0, 1, 255), bytes=True)[:, :3]
    return base64.b64encode(colours.tobytes()).decode()


def brightest(pixels: NDArray[Any], percentile: float = 99.8) -> float:
    """Return the value to show as the brightest.

    Parameters
    ----------
    pixels : float array
    percentile : float, optional
        Of the finite magnitudes.

    Returns
    -------
    float
        Positive.
    """
    known = np.abs(pixels[np.isfinite(pixels)])
    return (float(np.percentile(known, percentile)) if known.size else 0.0) or 1.0
