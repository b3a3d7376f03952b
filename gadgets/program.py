"""Entry point of the command line: signal handlers and robust standard streams."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from typing import Any

from gadgets.signals import exit_now, interruptible
from scoremri_core.errors import not_installed

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # the reader or terminal has gone


def main() -> None:
    """Import and run the command line; signals are handled during the import, too."""
    open_standard_streams()
    with interruptible():
        try:
            from gadgets import commands
        except ModuleNotFoundError as error:
            exit_now(2, not_installed(error))
        try:
            commands.main()
        except SystemExit as end:
            status = int(end.code or 0)
    if any(thread.daemon for thread in threading.enumerate()):
        exit_now(status)
    sys.exit(status)


def open_standard_streams() -> None:
    """Open closed standard streams, and ignore write errors once the reader has gone."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "w" if descriptor else "r"
        if getattr(sys, name) is None:  # otherwise the next file opened would get its descriptor
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
        if descriptor:
            stream = getattr(sys, name)
            raw = io.BufferedWriter(_RobustFile(descriptor, mode, closefd=False))
            buffered = stream.line_buffering or stream.write_through
            text = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=buffered)
            setattr(sys, name, text)


class _RobustFile(io.FileIO):
    """Discards output once the reader has gone; on standard error, after any write error."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if self.fileno() == 1 and error.errno not in GONE:
                raise
            return len(data)
