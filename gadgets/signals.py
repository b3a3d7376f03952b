"""SIGINT, SIGTERM and SIGHUP: a command cleans up and exits with 128 + signal number."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

MESSAGES = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first of the signals in the block, then exit.

    Signals that the process ignores (SIGHUP under nohup) stay ignored.
    """
    numbers = handled_signals()
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for other in numbers:  # systemd sends SIGTERM and SIGHUP; do not interrupt the cleanup
            signal.signal(other, interrupt if other == number else signal.SIG_IGN)
        sys.unraisablehook = repeat
        logging.disable()
        raise KeyboardInterrupt

    def repeat(dropped: Any) -> None:
        """Send the signal again if a callback, whose exceptions Python ignores, received it."""
        if dropped.exc_type is KeyboardInterrupt:
            main = threading.main_thread().ident
            timer = threading.Timer(0.1, signal.pthread_kill, (main, received[0]))
            timer.daemon = True
            timer.start()

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:  # an interrupted import may raise something else
        if received:
            exit_now(128 + received[0], MESSAGES[signal.Signals(received[0]).name])


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
