"""Where the process of the command line begins: its signals, and standard streams that last."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from gadgets.signals import heeded
from scoremri_core.errors import not_installed

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # of a reader, or a terminal


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    open_standard_streams()
    with heeded():
        try:
            from gadgets import commands
        except ModuleNotFoundError as error:
            sys.stderr.write(f"scoremri: {not_installed(error)}\n")
            sys.exit(2)
        commands.main()


def open_standard_streams() -> None:
    """Open those that are closed, and have none fail when its reader goes away."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "w" if descriptor else "r"
        if getattr(sys, name) is None:  # the next file would take its descriptor, and its text
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
        if descriptor:
            stream = getattr(sys, name)
            lasting = io.BufferedWriter(_Lasting(descriptor, mode, closefd=False))
            buffered = stream.line_buffering or stream.write_through
            text = io.TextIOWrapper(
                lasting, stream.encoding, stream.errors, line_buffering=buffered
            )
            setattr(sys, name, text)


class _Lasting(io.FileIO):
    """Drops what is written once the reader is gone; of standard error, what cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if self.fileno() == 1 and error.errno not in GONE:
                raise
            return len(data)
