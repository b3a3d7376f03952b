"""Where the process of the command line begins: Ctrl-C ends it in one line from then on."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from scoremri_core.errors import not_installed


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nobody ignores it
        signal.signal(signal.SIGINT, _end)  # until the command line has a handler of its own
    try:
        from gadgets import commands
    except ModuleNotFoundError as error:
        sys.stderr.write(f"scoremri: {not_installed(error)}\n")
        sys.exit(2)
    commands.main()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # nothing was begun; and what imports do with an exception is theirs
    os.write(2, b"scoremri: interrupted\n")
    os._exit(128 + number)
