"""Training data of a prior, from its card."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def section(name: str, card: Mapping[str, Any] | None) -> str:
    """Format the card of a prior as HTML.

    Parameters
    ----------
    name : str
        Of the prior.
    card : mapping or None
        None: not available.

    Returns
    -------
    str
    """
    head = f'<section id="prior"><h2>Training data of the prior {escape(name)}</h2>'
    if card is None:
        return (
            f"{head}<p>Unknown: its card is not available (give <code>--prior PATH</code>).</p>"
            "</section>"
        )
    limits = [escape(str(each)) for each in card.get("limits", ())]
    notes = f"<ul>{''.join(f'<li>{each}</li>' for each in limits)}</ul>" if limits else ""
    data = card.get("training_data", [])
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>"
        for row in _grouped(data)
    )
    table = (
        f"<details><summary>Training data and licences ({len(data)} entries)</summary>"
        '<div class="wide"><table><thead><tr><th>subject</th><th>contrasts</th><th>licence</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div></details>"
        if rows
        else "<p>The card has no training data.</p>"
    )
    digest = escape(str(card.get("sha256", "unknown"))[:16])
    return (
        f"{head}<p>{escape(str(card.get('description', '')))}</p>{notes}{table}"
        f"<p><small>Card of the prior of this name on the computer that wrote this page; SHA-256 "
        f"of the weights {digest}...</small></p></section>"
    )


def _grouped(data: list[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return one row per subject and licence, with each contrast once."""
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    for entry in data:
        key = str(entry.get("subject", "")), str(entry.get("licence", ""))
        for contrast in str(entry.get("contrasts", "")).split(", "):
            kinds.setdefault(key, {})[contrast] = None
    return [(subject, ", ".join(seen), licence) for (subject, licence), seen in kinds.items()]
