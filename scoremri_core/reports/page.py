"""Self-contained HTML page of a report."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from scoremri_core.reports.frame import ReportFrame
from scoremri_core.reports.pixels import palette

CAUTION = "For research only. Not a medical device; nothing here has been validated for diagnosis."


def page(
    title: str, about: str, body: Iterable[str], scripts: Sequence[str] = ("viewer.js",)
) -> str:
    """Make an HTML document.

    Its content security policy forbids to load anything and to run other scripts.

    Parameters
    ----------
    title, about : str
        Plain text.
    body : iterable of str
        HTML sections, one of them from `viewer`.
    scripts : sequence of str, optional
        Files of this package; more than one may connect to the server.

    Returns
    -------
    str
    """
    code = [resource(name) for name in scripts]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in code)
    connect = " connect-src 'self';" if len(code) > 1 else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes};{connect}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{resource('page.css')}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><p class="notice">{CAUTION}</p>'
        f"<p>{escape(about)}</p></header>\n"
        + "\n".join(body)
        + "".join(f"<script>{script}</script>" for script in code)
        + "</body></html>\n"
    )


def resource(name: str) -> str:
    """Read a text file of this package.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    return files(__package__).joinpath(name).read_text("utf-8")


def viewer(frames: Sequence[ReportFrame] = ()) -> str:
    """Make the viewer of frames, which needs the script viewer.js.

    Parameters
    ----------
    frames : sequence of ReportFrame

    Returns
    -------
    str
    """
    data = json.dumps({"palette": palette(), "frames": [frame.as_json() for frame in frames]})
    data = data.replace("<", "\\u003c")
    return (
        "<noscript><p>The images need JavaScript.</p></noscript>"
        + resource("viewer.html")
        + f'<script type="application/json" id="frames-data">{data}</script>'
    )


def terms(words: Mapping[str, str]) -> str:
    """Make a list of terms and their descriptions.

    Parameters
    ----------
    words : mapping
        Descriptions by term.

    Returns
    -------
    str
        HTML.
    """
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in words.items())
    return f"<dl>{rows}</dl>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table.

    Parameters
    ----------
    heads : sequence of str
        Plain text.
    rows : iterable of sequence of str
        HTML of the cells.

    Returns
    -------
    str
    """
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{parts}</table></div>'


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
