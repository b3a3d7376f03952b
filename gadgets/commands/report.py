"""A page of the images in a file, and of what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Group, Overwrite

MOST = 24  # frames of a page that has no other limit: about a megabyte each


def report(
    source: Annotated[Path, typer.Argument(metavar="IMAGES.h5", help="Images, as replay makes.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PAGE.html", help="Page.", show_default="IMAGES.html"
        ),
    ] = None,
    group: Group = "dataset",
    frames: Annotated[
        int, typer.Option(help="Frames to show at most, evenly spread.", min=1)
    ] = MOST,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Prior of the images, for its card: a name or a path.",
            show_default="as the images name it",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one page of the images in a file: for research only.

    It shows mean, standard deviation and samples, and zero-filled and classical images where the
    file has them, with what is known of noise, fit and prior. It needs nothing from elsewhere.
    """
    from scoremri_core.paths import check_new

    page = source.with_suffix(".html") if output is None else output
    check_new(page, overwrite, source)
    write_report(source, page, group, frames, prior)
    typer.echo(f"Page: {page}")


def write_report(
    source: Path, page: Path, group: str, most: int = MOST, prior: str | None = None
) -> None:
    """Write the page of a file of images.

    Raises
    ------
    InputError
        Where the file holds no images that this program made; or as `card_at_hand`.
    """
    from gadgets.commands.report_images import read_frames
    from scoremri_core.paths import replacing
    from scoremri_core.reports import report as reports

    shown, count = read_frames(source, group, most)
    about = f"{count} frames" if count > 1 else "One frame"
    if len(shown) < count:
        about += f", of which {len(shown)}, evenly spread, are shown"
    about += f". From {source.name}."

    def card(name: str) -> reports.Card:
        return reports.card_at_hand(prior or name)

    with replacing(page) as partial:
        partial.write_text(reports.report(shown, about, card), "utf-8")
