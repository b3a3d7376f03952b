"""Threads that know for whom they work, and log lines that say so."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

from scoremri_core.threads import cores

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's threads wait

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


def say_for_whom(record: logging.LogRecord) -> bool:
    """Begin a log line with the connection or measurement that it is about: a logging filter."""
    name = _FOR.get()
    if name and not record.getMessage().startswith(f"{name}:"):
        record.msg, record.args = f"{name}: {record.getMessage()}", None
    return True


def share_cores() -> None:
    """Let OpenMP's threads sleep while they wait, and have no more of them than cores.

    To be called before torch is loaded, which reads it then.  What the environment says stays.
    Threads that spin take the cores from those that they wait for, where others compute as well;
    and OpenMP counts the cores of the machine, of which a container may have the use of fewer.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    granted = _granted()
    if granted is not None and granted < cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def _granted() -> int | None:
    """How many cores the control group of this process may use, rounded up; None if all."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None  # another system than Linux, or an older one
