"""Training data and measurements of a prior, from its card."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from scoremri_core.reports.page import table


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
    head = f'<section id="prior"><h2>Prior {escape(name)}</h2>'
    if card is None:
        return (
            f"{head}<p>Training data and measurements unknown: its card is not available (give "
            "<code>--prior PATH</code>).</p></section>"
        )
    notes = "".join(f"<li>{escape(str(each))}</li>" for each in card.get("limits", ()))
    data = card.get("training_data", [])
    rows = [[escape(value) for value in row] for row in _grouped(data)]
    listed = (
        f"<details><summary>Training data and licences ({len(data)} entries)</summary>"
        f"{table(('subject', 'contrasts', 'licence'), rows)}</details>"
        if rows
        else "<p>The card has no training data.</p>"
    )
    digest = escape(str(card.get("sha256", "unknown"))[:16])
    return (
        f"{head}<p>{escape(str(card.get('description', '')))}</p>{_measured(card)}"
        f"<ul>{notes}</ul>{listed}"
        f"<p><small>Card of the prior of this name on the computer that wrote this page; SHA-256 "
        f"of the weights {digest}...</small></p></section>"
    )


def _measured(card: Mapping[str, Any]) -> str:
    """Format the measured error of the denoiser, or the warning that there is none."""
    if "denoiser_error" not in card:
        return (
            '<p class="notice">This prior was never measured: the error of its denoiser, and with '
            "it the uncertainty of these images, is unknown.</p>"
        )
    measured = {"validation": card["denoiser_error"]}
    if "test" in card:
        measured["test"] = card["test"]["denoiser_error"]
    sigmas = [f"{entry['sigma']:g}" for entry in card["denoiser_error"]]
    rows = [
        [name, *(f"{entry['mse_over_sigma2']:.2g}" for entry in errors)]
        for name, errors in measured.items()
    ]
    return (
        "<p>Mean squared error of the denoiser over the noise variance sigma², by sigma (the "
        f"images' 99th percentile is 1):</p>{table(('sigma', *sigmas), rows)}"
    )


def _grouped(data: list[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return one row per subject and licence, with each contrast once."""
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    for entry in data:
        key = str(entry.get("subject", "")), str(entry.get("licence", ""))
        for contrast in str(entry.get("contrasts", "")).split(", "):
            kinds.setdefault(key, {})[contrast] = None
    return [(subject, ", ".join(seen), licence) for (subject, licence), seen in kinds.items()]
