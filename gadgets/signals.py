"""Signals that end a command: it cleans up, says so and exits with 128 + the signal's number."""

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

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
AGAIN = 3.0  # seconds after which a signal is repeated: a module may swallow the exception

_received = 0  # number of the last signal
_when = -AGAIN  # in seconds of the monotonic clock


@contextmanager
def heeded() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block for each of the signals, and end the process then.

    A signal that the process ignores, as SIGHUP under nohup, stays ignored.
    """
    numbers = not_ignored()
    for number in numbers:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN if _received else signal.SIG_DFL)
        if _received:
            end_at_once(128 + _received, WORDS[signal.Signals(_received).name])


def not_ignored() -> list[int]:
    """Which of the signals the process does not ignore."""
    numbers = [getattr(signal, name) for name in WORDS if hasattr(signal, name)]
    return [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def end_at_once(status: int, last_words: str = "") -> NoReturn:
    """End the process without Python's shutdown, which aborts while threads run C++ code."""
    logging.disable()  # what threads still log would come after the last words
    logging.shutdown()
    if last_words:
        sys.stderr.write(f"scoremri: {last_words}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received, _when
    if time.monotonic() - _when < AGAIN / 2:  # two at once must not disturb the cleaning up
        return
    _received, _when = number, time.monotonic()
    logging.disable()
    warnings.simplefilter("ignore")  # of files that an interrupted import leaves open
    sys.unraisablehook = lambda dropped: None  # Python drops exceptions of callbacks
    # to the thread: one that waits notices no other signal
    repeat = (threading.main_thread().ident, number)
    timer = threading.Timer(AGAIN, signal.pthread_kill, repeat)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt
