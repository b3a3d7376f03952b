"""Report: frames, a table of several, and the training data of the priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scoremri_core.errors import InputError
from scoremri_core.priors.storage import read_card
from scoremri_core.reports import card, frame
from scoremri_core.reports.frame import ReportFrame
from scoremri_core.reports.page import page, table

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
    frames: Sequence[ReportFrame], about: str = "", find_card: Callable[[str], Card] = card_at_hand
) -> str:
    """Make a self-contained HTML page.

    Parameters
    ----------
    frames : sequence of ReportFrame
    about : str, optional
        Description, plain text.
    find_card : callable, optional
        Returns the card of a prior by name.

    Returns
    -------
    str
    """
    anchored = [(f"frame-{i}", each) for i, each in enumerate(frames, start=1)]
    body = [table(anchored)] if len(anchored) > 1 else []
    body += [frame.section(each, anchor) for anchor, each in anchored]
    names = dict.fromkeys(each.facts.prior for each in frames if each.facts.sampled)
    body += [card.section(name, find_card(name)) for name in names if name not in ("", "none")]
    return page(TITLE, about, body)
