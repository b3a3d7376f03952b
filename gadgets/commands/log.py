"""The log of the command line."""

from __future__ import annotations

import logging
import sys

from gadgets.threads import add_log_context
from scoremri_core.errors import InputError


def configure_logging(level: int) -> None:
    """Send the package's log to stderr, in colour on a terminal.

    Parameters
    ----------
    level : int
        Level of the `logging` module. Above DEBUG, invalid input is logged without a traceback.
    """
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        from gadgets.commands.progress import terminal

        handler = RichHandler(console=terminal(), show_path=False)
        form = "%(message)s"
    else:
        handler = logging.StreamHandler()
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.addFilter(add_log_context)
    if level > logging.DEBUG:
        handler.addFilter(_without_traceback_of_input_errors)
    logging.basicConfig(level=logging.WARNING, format=form, handlers=[handler], force=True)
    for package in ("scoremri_core", "gadgets"):
        logging.getLogger(package).setLevel(level)


def _without_traceback_of_input_errors(record: logging.LogRecord) -> bool:
    """Remove the traceback of an `InputError` from a log record."""
    if record.exc_info and isinstance(record.exc_info[1], InputError):
        record.exc_info = None
    return True
