"""What a prior was trained on, as its card says."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def section(name: str, card: Mapping[str, Any] | None) -> str:
    """The card of a prior as HTML.

    Parameters
    ----------
    name : of the prior, as the images give it.
    card : None where it is not at hand.
    """
    head = f'<section id="prior"><h2>What the prior has seen: {escape(name)}</h2>'
    if card is None:
        return (
            f"{head}<p>Its card is not at hand here, so that what it was trained on is not known "
            "(<code>--prior PATH</code> reads it).</p></section>"
        )
    limits = [escape(str(each)) for each in card.get("limits", ())]
    told = f"<ul>{''.join(f'<li>{each}</li>' for each in limits)}</ul>" if limits else ""
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
        else "<p>The card does not say what it was trained on.</p>"
    )
    digest = escape(str(card.get("sha256", "not known"))[:16])
    return (
        f"{head}<p>{escape(str(card.get('description', '')))}</p>{told}{table}"
        f"<p><small>Card of the prior of this name on the machine that made this page; weights "
        f"with SHA-256 {digest}...</small></p></section>"
    )


def _grouped(data: list[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """One row for each subject and licence, each contrast once."""
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    for entry in data:
        key = str(entry.get("subject", "")), str(entry.get("licence", ""))
        for contrast in str(entry.get("contrasts", "")).split(", "):
            kinds.setdefault(key, {})[contrast] = None
    return [(subject, ", ".join(seen), licence) for (subject, licence), seen in kinds.items()]
