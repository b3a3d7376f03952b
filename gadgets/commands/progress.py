"""Progress of long work: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def progress(
    task: str, total: int | None, every: float = 30.0
) -> Iterator[Callable[[int, str], None]]:
    """Show how far a task is.

    Parameters
    ----------
    task : what is done, in a word or two.
    total : number of steps, None where it is not known.
    every : seconds between log lines where there is no terminal.

    Yields
    ------
    A function of the steps done and a note, such as a loss.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress, TextColumn

        columns = (*Progress.get_default_columns(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task_id = bar.add_task(task, total=total, note="")

            def update(done: int, note: str = "") -> None:
                bar.update(task_id, completed=done, note=note)

            yield update
        return

    last = time.monotonic()

    def report(done: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            logger.info("%s: %d of %s %s", task, done, "?" if total is None else total, note)

    yield report
