"""Image with orientation letters, scale bar and phase-encode direction."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from scoremri_core.reports.geometry import View

# relative to the larger side
MARGIN = 0.03  # of letters
LETTER = 0.05  # font size
ARROW = 0.11  # length


def panel(uri: str, view: View, label: str, shown: bool = True) -> str:
    """Draw an SVG in mm, whose scale bar is correct at any size.

    Parameters
    ----------
    uri : str
        Of the transposed and flipped image.
    view : View
    label : str
        For screen readers.
    shown : bool, optional
        Whether it is visible, of several images of a slider.

    Returns
    -------
    str
    """
    width, height = view.size
    side = max(width, height)
    drawn = [
        f'<image href="{uri}" width="{width:g}" height="{height:g}" preserveAspectRatio="none"/>',
        *_letters(view, side),
        *_bar(view, side),
        *_arrow(view, side),
    ]
    state = ' class="on"' if shown else ""
    return (
        f'<svg{state} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" '
        f'font-size="{LETTER * side:.4g}" stroke-width="{0.012 * side:.4g}">{"".join(drawn)}</svg>'
    )


def figure(title: str, panels: Sequence[str], legend: str, note: str = "") -> str:
    """Make a figure of an image, or of several with a slider.

    Parameters
    ----------
    title : str
        Plain text.
    panels : sequence of str
        From `panel`.
    legend : str
        From `scale`.
    note : str, optional
        Plain text.

    Returns
    -------
    str
    """
    flip = ""
    if len(panels) > 1:
        last = len(panels)
        flip = (
            f'<label class="flip">sample <output>1</output> of {last}'
            f'<input type="range" min="1" max="{last}" value="1" aria-label="sample"></label>'
        )
    caption = f"<small>{escape(note)}</small>" if note else ""
    return (
        f'<figure><div class="pictures">{"".join(panels)}</div>'
        f"<figcaption><b>{escape(title)}</b>{legend}{caption}</figcaption>{flip}</figure>"
    )


def scale(bar: str, top: float, unit: str, window: bool = False) -> str:
    """Make a legend from 0 to `top`.

    Parameters
    ----------
    bar : str
        CSS background from `pixels.bar`.
    top : float
        Maximal value.
    unit : str
    window : bool, optional
        Whether the grey window of the page applies.

    Returns
    -------
    str
    """
    ends = f' data-top="{top:.6g}"' if window else ""
    return (
        f'<span class="scale"{ends}><span>0</span><i style="background:{escape(bar)}"></i>'
        f"<span>{top:.3g}</span></span><small>{escape(unit)}</small>"
    )


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}">{escape(words)}</text>'


def _letters(view: View, side: float) -> list[str]:
    width, height = view.size
    edge, half = MARGIN * side, 0.35 * LETTER * side
    places = {
        "left": (edge, height / 2 + half, "start"),
        "right": (width - edge, height / 2 + half, "end"),
        "top": (width / 2, edge + 2 * half, "middle"),
        "bottom": (width / 2, height - edge, "middle"),
    }
    return [_text(*places[name][:2], words, places[name][2]) for name, words in view.edges.items()]


def _bar(view: View, side: float) -> list[str]:
    edge, bottom = MARGIN * side, view.size[1] - MARGIN * side
    return [
        f'<path d="M{edge:.4g} {bottom:.4g}h{view.bar}"/>',
        _text(edge, bottom - 0.03 * side, f"{view.bar} mm", "start"),
    ]


def _arrow(view: View, side: float) -> list[str]:
    """Draw the phase-encode arrow in the lower right corner."""
    (right, down), length, tip = view.phase_encode, ARROW * side, 0.022 * side
    edge = MARGIN * side + tip
    x = view.size[0] - edge - (length if right > 0 else 0)
    y = view.size[1] - edge - (length if down > 0 else 0)
    end = x + right * length, y + down * length
    back = end[0] - right * tip, end[1] - down * tip
    head = (
        f"M{back[0] - down * tip:.4g} {back[1] - right * tip:.4g}L{end[0]:.4g} {end[1]:.4g}"
        f"L{back[0] + down * tip:.4g} {back[1] + right * tip:.4g}"
    )
    middle = (x + end[0]) / 2, (y + end[1]) / 2
    words = (
        _text(middle[0], middle[1] - 0.03 * side, "PE")
        if right
        else _text(middle[0] - 0.03 * side, middle[1] + 0.018 * side, "PE", "end")
    )
    return [f'<path d="M{x:.4g} {y:.4g}L{end[0]:.4g} {end[1]:.4g}{head}"/>', words]
