"""Threads that know for whom they work, and log lines that say so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

_FOR: ContextVar[str] = ContextVar("works for", default="")


@contextmanager
def working_for(name: str) -> Iterator[None]:
    """Whatever is logged within, and by the threads that are started within, is for `name`."""
    token = _FOR.set(name)
    try:
        yield
    finally:
        _FOR.reset(token)


def start(function: Callable[..., None], *arguments: Any, name: str = "") -> threading.Thread:
    """Run a function in a daemon thread, which works for whomever this one works for."""
    run = copy_context().run
    thread = threading.Thread(
        target=run, args=(function, *arguments), name=name or None, daemon=True
    )
    thread.start()
    return thread


def side_by_side(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """What a function makes of items, in their order, each in a thread of its own."""
    if len(items) == 1:
        yield function(items[0])
        return
    with ThreadPoolExecutor(len(items)) as pool:
        made = [pool.submit(copy_context().run, function, item) for item in items]
        for each in made:
            yield each.result()


def say_for_whom(record: logging.LogRecord) -> bool:
    """Begin a log line with the connection or measurement that it is about: a logging filter."""
    name = _FOR.get()
    if name and not record.getMessage().startswith(f"{name}:"):
        record.msg, record.args = f"{name}: {record.getMessage()}", None
    return True
