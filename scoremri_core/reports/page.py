"""Self-contained HTML page of a report."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from scoremri_core.reports.frame import ReportFrame

CAUTION = "For research only. Not a medical device; nothing here has been validated for diagnosis."
WINDOW = (
    '<p class="window"><b>Grey window</b> <label>black <output>0</output> %'
    '<input type="range" min="0" max="99" value="0" aria-label="black"></label>'
    "<label>white <output>100</output> %"
    '<input type="range" min="1" max="100" value="100" aria-label="white"></label></p>'
)  # of all frames, relative to the initial white value of each


def page(title: str, about: str, body: Iterable[str], scripts: Sequence[str] = ()) -> str:
    """Make an HTML document.

    Its content security policy forbids to load anything and to run other scripts.

    Parameters
    ----------
    title, about : str
        Plain text.
    body : iterable of str
        HTML sections.
    scripts : sequence of str, optional
        In addition to that of the sample slider and grey window; may connect to the server.

    Returns
    -------
    str
    """
    style, script = (
        files(__package__).joinpath(name).read_text() for name in ("page.css", "page.js")
    )
    scripts = [script, *scripts]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    connect = " connect-src 'self';" if len(scripts) > 1 else ""
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {hashes};{connect}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><p class="notice">{CAUTION}</p>'
        f"<p>{escape(about)}</p></header>\n{WINDOW}{_join(body)}"
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "</body></html>\n"
    )


def table(frames: Sequence[tuple[str, ReportFrame]]) -> str:
    """Make a table of the frames with links to their sections.

    Parameters
    ----------
    frames : sequence of (str, ReportFrame)
        Anchor and frame.

    Returns
    -------
    str
    """
    heads = ("frame", "R", "noise, used / thermal", "misfit", "median relative sd")
    rows = []
    for anchor, shown in frames:
        facts = shown.facts
        classical = "" if facts.sampled else " (classical)"
        cells = (
            _number(facts.acceleration),
            f"{_number(facts.sigma_n)} / {_number(facts.sigma_thermal)}",
            _number(facts.misfit),
            shown.median_relative,
        )
        rows.append(
            f'<tr><td><a href="#{escape(anchor)}">{escape(shown.name)}</a>{classical}</td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return (
        '<section id="frames"><h2>All frames</h2><div class="wide"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value == value else "-"


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
