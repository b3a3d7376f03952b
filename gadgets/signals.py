"""SIGINT, SIGTERM and SIGHUP: a command cleans up and exits with 128 + signal number."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

MESSAGES = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
REPEAT_AFTER = 3.0  # seconds; a module may swallow the KeyboardInterrupt

_received = 0  # last signal
_received_at = -REPEAT_AFTER  # in seconds of the monotonic clock


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on each of the signals in the block, then exit.

    Signals that the process ignores (SIGHUP under nohup) stay ignored.
    """
    numbers = handled_signals()
    for number in numbers:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN if _received else signal.SIG_DFL)
        if _received:
            exit_now(128 + _received, MESSAGES[signal.Signals(_received).name])


def handled_signals() -> list[int]:
    """Return the signals that the process does not ignore."""
    numbers = [getattr(signal, name) for name in MESSAGES if hasattr(signal, name)]
    return [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def exit_now(status: int, message: str = "") -> NoReturn:
    """Exit without Python's shutdown, which aborts while threads run C++ code."""
    logging.disable()  # other threads would log after the message
    logging.shutdown()
    if message:
        sys.stderr.write(f"scoremri: {message}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received, _received_at
    if time.monotonic() - _received_at < REPEAT_AFTER / 2:  # do not interrupt the cleanup
        return
    _received, _received_at = number, time.monotonic()
    logging.disable()
    warnings.simplefilter("ignore")  # about files that an interrupted import left open
    sys.unraisablehook = lambda exception: None  # exceptions in callbacks
    # a waiting main thread only notices a signal sent to the thread
    repeat = (threading.main_thread().ident, number)
    timer = threading.Timer(REPEAT_AFTER, signal.pthread_kill, repeat)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt
