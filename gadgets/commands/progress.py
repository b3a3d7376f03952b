"""Progress of a long task: a bar on a terminal, otherwise log lines, at least every ten seconds."""

from __future__ import annotations

import logging
import sys
import threading
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
    """Return the console of stderr that log lines and progress bars share."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress(task: str, total: int | None, every: float = 10.0) -> Iterator[Advance]:
    """Show the progress of a task.

    Parameters
    ----------
    task : str
        Description in a word or two.
    total : int or None
        Number of steps, None if unknown.
    every : float, optional
        Seconds between log lines without a terminal. Default: 10.

    Yields
    ------
    callable
        ``advance(done, note)`` with the steps done, possibly fractional, and a note such as a loss.
    """
    if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
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

    started = last = time.monotonic()
    latest = 0.0, ""

    def log() -> None:
        nonlocal last
        last = time.monotonic()
        done, note = latest
        steps = f"{done:.3g} of {'?' if total is None else total}"
        logger.info("%s: %s after %.0f s %s", task, steps, last - started, note)

    def log_if_due() -> None:
        if time.monotonic() - last >= every:
            log()

    def report(done: float, note: str = "") -> None:
        nonlocal latest
        latest = done, note
        log_if_due()

    with _repeating(log_if_due, max(every / 4, 1.0)):
        yield report


@contextmanager
def _repeating(action: Callable[[], object], every: float) -> Iterator[None]:
    """Call a function in regular intervals, from a thread that logs as the caller."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every):
            action()

    thread = threading.Thread(target=run, name=threading.current_thread().name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
