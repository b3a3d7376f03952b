"""Progress of long work: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

Advance = Callable[[float, str], None]


@cache
def terminal() -> Console:
    """The one console of stderr: log lines that went past it would tear its bars."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress(task: str, total: int | None, every: float = 30.0) -> Iterator[Advance]:
    """Show how far a task is.

    Parameters
    ----------
    task : what is done, in a word or two.
    total : number of steps, None where it is not known.
    every : seconds between log lines where there is no terminal.

    Yields
    ------
    A function of the steps done, of which one may be done in part, and a note, such as a loss.
    """
    if sys.stderr.isatty():
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=terminal(), transient=True) as bar:
            task_id = bar.add_task(task, total=total, note="")

            def update(done: float, note: str = "") -> None:
                bar.update(task_id, completed=done, note=note)

            yield update
        return

    last = time.monotonic()

    def report(done: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            logger.info("%s: %.3g of %s %s", task, done, "?" if total is None else total, note)

    yield report
