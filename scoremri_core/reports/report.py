"""Report: properties of the run, frames, and the training data of the priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from scoremri_core.errors import InputError
from scoremri_core.priors.storage import read_card
from scoremri_core.reports import card
from scoremri_core.reports.frame import ReportFrame
from scoremri_core.reports.page import page, table, terms, viewer

TITLE = "MRI reconstruction with uncertainty"
Card = Mapping[str, Any] | None


def card_at_hand(name: str) -> Card:
    """Read the card of a prior.

    Parameters
    ----------
    name : str
        Name or path of the prior.

    Returns
    -------
    mapping or None
        None: unknown name.

    Raises
    ------
    InputError
        The card of a path is missing or unreadable.
    """
    try:
        return read_card(name)
    except InputError:
        if Path(name).suffix:
            raise
        return None


def report(
    frames: Sequence[ReportFrame],
    about: str = "",
    find_card: Callable[[str], Card] = card_at_hand,
    run: Mapping[str, str] | None = None,
) -> str:
    """Make a self-contained HTML page.

    Parameters
    ----------
    frames : sequence of ReportFrame
    about : str, optional
        Description, plain text.
    find_card : callable, optional
        Returns the card of a prior by name.
    run : mapping of str to str, optional
        Scan and settings of the reconstruction, by name.

    Returns
    -------
    str
    """
    body = [f'<section id="run"><h2>Run</h2>{terms(run)}</section>'] if run else []
    body.append(viewer(frames))
    if len(frames) > 1:
        body.append(_table(frames))
    names = dict.fromkeys(each.facts.prior for each in frames if each.facts.sampled)
    body += [card.section(name, find_card(name)) for name in names if name not in ("", "none")]
    return page(TITLE, about, body)


def _table(frames: Sequence[ReportFrame]) -> str:
    """Make a table of the frames with links that show them."""
    heads = ("frame", "R", "noise, used / thermal", "misfit", "median relative sd")
    rows = []
    for number, frame in enumerate(frames, start=1):
        facts = frame.facts
        classical = "" if facts.sampled else " (classical)"
        rows.append(
            (
                f'<a href="#frame-{number}">{escape(frame.name)}</a>{classical}',
                _number(facts.acceleration),
                f"{_number(facts.sigma_n)} / {_number(facts.sigma_thermal)}",
                _number(facts.misfit),
                escape(frame.median_relative),
            )
        )
    return f'<section id="frames"><h2>All frames</h2>{table(heads, rows)}</section>'


def _number(value: float) -> str:
    return f"{value:.3g}" if value == value else "-"
