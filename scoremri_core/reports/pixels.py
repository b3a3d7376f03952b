"""Images as PNG data URIs."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = "inferno"  # perceptually uniform, also in grey print
GAP = 255  # palette index of missing values
GAP_GREY = 70


def grey(pixels: NDArray[Any], top: float) -> str:
    """Encode an image in grey.

    Parameters
    ----------
    pixels : float array, (y, x)
    top : float
        White; 0 is black.

    Returns
    -------
    str
        Data URI.
    """
    return _uri(_levels(pixels, top, 255))


def colour(values: NDArray[Any], top: float) -> str:
    """Encode a map in colours; non-finite values are grey.

    Parameters
    ----------
    values : float array, (y, x)
    top : float
        Brightest colour; 0 is the darkest.

    Returns
    -------
    str
        Data URI.
    """
    indices = np.where(np.isfinite(values), _levels(values, top, GAP - 1), GAP)
    return _uri(indices.astype(np.uint8), _palette())


def bar(coloured: bool) -> str:
    """Return the grey or colour scale as a CSS background.

    Parameters
    ----------
    coloured : bool

    Returns
    -------
    str
    """
    if not coloured:
        return "linear-gradient(to right, #000, #fff)"
    levels = np.linspace(0, GAP - 1, 12).astype(int)
    rgb = np.frombuffer(_palette(), np.uint8).reshape(-1, 3)[levels]
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*stop) for stop in rgb)
    return f"linear-gradient(to right, {stops})"


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


def _levels(values: NDArray[Any], top: float, most: int) -> NDArray[np.uint8]:
    share = np.nan_to_num(np.asarray(values, float) / top, posinf=1, neginf=0)
    return np.rint(np.clip(share, 0, 1) * most).astype(np.uint8)


@cache
def _palette() -> bytes:
    from matplotlib import colormaps

    known = colormaps[COLOURS](np.linspace(0, 1, GAP), bytes=True)[:, :3]
    return bytes(np.vstack([known, np.full((1, 3), GAP_GREY, np.uint8)]).tobytes())


def _uri(levels: NDArray[np.uint8], palette: bytes | None = None) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(levels))
    if palette is not None:
        image.putpalette(palette)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
