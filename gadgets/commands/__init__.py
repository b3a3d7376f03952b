"""The command line: one file a command, heavy imports inside the functions."""

from __future__ import annotations

import _thread
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

import scoremri_core
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

COMMANDS = (
    "demo",
    "replay",
    "stream",
    "serve",
    "simulate",
    "undersample",
    "evaluate",
    "validate",
    "benchmark",
    "train",
    "measure",
    "import-prior",
    "openrecon",
)

# The base of BadParameter is the usage error of the click that typer carries.
UsageError: Any = typer.BadParameter.__mro__[1]
INTERRUPTED = 130  # exit code after Ctrl-C

app = typer.Typer(
    name="scoremri",
    help="Score-based MRI reconstruction with uncertainty, inside a Gadgetron stream.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scoremri {scoremri_core.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log details, and tracebacks of errors.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Score-based MRI reconstruction with uncertainty, inside a Gadgetron stream."""
    configure_logging(logging.DEBUG if verbose else logging.INFO)


for _name in COMMANDS:
    _function = _name.replace("-", "_")
    app.command(_name)(getattr(importlib.import_module(f"{__name__}.{_function}"), _function))


def configure_logging(level: int) -> None:
    """Send the package's log to stderr: in colour on a terminal, as plain lines elsewhere."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        from gadgets.commands.progress import terminal

        handler = RichHandler(console=terminal(), show_path=False)
        form = "%(message)s"
    else:
        handler = logging.StreamHandler()
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    if level > logging.DEBUG:
        handler.addFilter(_in_one_sentence)
    logging.basicConfig(level=logging.WARNING, format=form, handlers=[handler], force=True)
    for package in ("scoremri_core", "gadgets"):
        logging.getLogger(package).setLevel(level)


def _in_one_sentence(record: logging.LogRecord) -> bool:
    """Take the traceback off what is said of bad input."""
    if record.exc_info and isinstance(record.exc_info[1], InputError):
        record.exc_info = None
    return True


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; bad input ends in one sentence on stderr and exit code 2.

    Parameters
    ----------
    arguments : the command line without the program's name; None takes `sys.argv`, and the process
        is then this command's alone
    """
    if arguments is None:
        sys.unraisablehook = _unraisable
    status = _run(arguments)
    if arguments is None:
        _end_despite_threads(status)
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    """The exit code of a command line."""
    try:
        status = app(args=arguments, prog_name="scoremri", standalone_mode=False)
    except InputError as error:
        logger.debug("bad input", exc_info=True)
        return _refused(str(error))
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return int(error.exit_code)
        return _refused(error.format_message())
    except OSError as error:  # of a file that was refused nowhere else
        logger.debug("a file", exc_info=True)
        return _refused(str(error))
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    if status == INTERRUPTED:
        typer.echo("scoremri: interrupted", err=True)
    return status if isinstance(status, int) else 0


def _refused(message: str) -> int:
    typer.echo(f"scoremri: {' '.join(message.split())}", err=True)
    return 2


def _unraisable(dropped: Any) -> None:
    """Repeat an interrupt that fell into a callback, whose exceptions Python drops."""
    if isinstance(dropped.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()  # when the callback is over
    else:
        sys.__unraisablehook__(dropped)


def _end_despite_threads(status: int) -> None:
    """End the process at once if a thread still computes for nobody.

    At an ordinary end Python takes such a thread away in the midst of C++ code, which aborts.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
