"""Threads that inherit the log context (connection or measurement) of their caller."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

_CONTEXT: ContextVar[str] = ContextVar("log context", default="")


@contextmanager
def log_context(name: str) -> Iterator[None]:
    """Prefix log lines with `name`, including those of threads started in this context."""
    token = _CONTEXT.set(name)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def start(function: Callable[..., None], *arguments: Any, name: str = "") -> threading.Thread:
    """Run a function in a daemon thread with the log context of this one."""
    run = copy_context().run
    thread = threading.Thread(
        target=run, args=(function, *arguments), name=name or None, daemon=True
    )
    thread.start()
    return thread


def parallel_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Apply a function to items, one thread each, and yield the results in order.

    Parameters
    ----------
    function : callable
        Of one item.
    items : sequence

    Yields
    ------
    object
    """
    if len(items) == 1:
        yield function(items[0])
        return
    with ThreadPoolExecutor(len(items)) as pool:
        futures = [pool.submit(copy_context().run, function, item) for item in items]
        for future in futures:
            yield future.result()


def add_log_context(record: logging.LogRecord) -> bool:
    """Prefix a log record with the log context; a logging filter."""
    name = _CONTEXT.get()
    if name and not record.getMessage().startswith(f"{name}:"):
        record.msg, record.args = f"{name}: {record.getMessage()}", None
    return True
