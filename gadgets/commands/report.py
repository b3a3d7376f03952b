"""Write an HTML report of the images in a file."""

from __future__ import annotations

import json
import time
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.options import Group, Json, Overwrite, complete_priors
from gadgets.commands.replay_result import collected_warnings

MOST = 24  # default number of frames; each takes about a megabyte


def report(
    source: Annotated[Path, typer.Argument(metavar="IMAGES.h5", help="Images from replay.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PAGE.html", help="HTML file.", show_default="IMAGES.html"
        ),
    ] = None,
    group: Group = "dataset",
    frames: Annotated[
        int, typer.Option(metavar="N", help="Maximum number of frames, evenly spaced.", min=1)
    ] = MOST,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            autocompletion=complete_priors,
            help="Prior of the images, for its card.",
            show_default="from the images",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.h5",
            help="Images to compare with: of replay, or a scan of simulate with its truth.",
            show_default="none",
        ),
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Write an HTML report of the images in a file.

    It shows mean, standard deviation, samples and all other series with their values, regions and
    differences, the settings and the prior, in one self-contained file. For research only.
    """
    from scoremri_core.paths import check_new

    page = source.with_suffix(".html") if output is None else output
    check_new(page, overwrite, source, *([reference] if reference else ()))
    start = time.perf_counter()
    warnings: list[str] = []
    with collected_warnings(warnings):
        facts = write_report(source, page, group, frames, prior, reference)
    if not json_:
        return typer.echo(f"Report: {page}")
    seconds = round(time.perf_counter() - start, 3)
    result = {"source": str(source), "files": [str(page)], **facts, "seconds": seconds}
    typer.echo(json.dumps(result | {"warnings": warnings}, indent=1))


def write_report(
    source: Path,
    page: Path,
    group: str,
    most: int = MOST,
    prior: str | None = None,
    reference: Path | None = None,
) -> dict[str, Any]:
    """Write the HTML report of a file of images.

    Parameters
    ----------
    source, page : Path
        ISMRMRD images, and the HTML file to write.
    group : str
        HDF5 group of the images.
    most : int, optional
        Maximum number of frames, evenly spaced.
    prior : str, optional
        Prior whose card is shown. Default: that of the images' attributes.
    reference : Path, optional
        Images to compare with, as for `read_frames`.

    Returns
    -------
    dict
        Number of frames in the file, of those shown, the series, and the reason of each fallback.

    Raises
    ------
    InputError
        The file holds no images written by scoremri, or as `read_frames`, `card_at_hand`.
    """
    from gadgets.commands.report_images import read_frames
    from scoremri_core.paths import replacing
    from scoremri_core.reports import report as reports

    stored = read_frames(source, group, most, reference)
    shown, count = stored.frames, stored.count
    title = f"{count} frames" if count > 1 else "One frame"
    if len(shown) < count:
        title += f", {len(shown)} of them shown, evenly spaced"
    title += f". From {source.name}, {date.today()}."

    def card(name: str) -> reports.Card:
        return reports.card_at_hand(prior or name)

    with replacing(page) as partial:
        partial.write_text(reports.report(shown, title, card, stored.run), "utf-8")
    return {
        "series": list(dict.fromkeys(name for frame in shown for name in frame.outputs)),
        "frames": count,
        "shown": len(shown),
        "fallbacks": [frame.facts.fallback for frame in shown if frame.facts.fallback],
    }
