"""The command line: one file a command, heavy imports inside the functions."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any, NoReturn

import typer

import scoremri_core
from gadgets.signals import end_at_once, heeded
from gadgets.threads import add_log_context
from scoremri_core.errors import InputError, not_installed

logger = logging.getLogger(__name__)

COMMANDS = (
    "demo",
    "replay",
    "report",
    "convert",
    "stream",
    "serve",
    "check",
    "simulate",
    "undersample",
    "evaluate",
    "compare",
    "validate",
    "benchmark",
    "train",
    "measure",
    "import-prior",
    "export",
    "openrecon",
)

# The base of BadParameter is the usage error of the click that typer carries.
UsageError: Any = typer.BadParameter.__mro__[1]
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
    handler.addFilter(add_log_context)
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
    alone = arguments is None
    with heeded() if alone else nullcontext():
        status, last_words = _run(arguments)
    if alone and any(thread.daemon for thread in threading.enumerate()):
        end_at_once(status, last_words)
    if last_words:
        typer.echo(f"scoremri: {last_words}", err=True)
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """The exit code of a command line, and the sentence that it ends with, if there is one."""
    try:
        status = app(args=arguments, prog_name="scoremri", standalone_mode=False)
    except InputError as error:
        logger.debug("bad input", exc_info=True)
        return 2, _in_one_line(error)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return int(error.exit_code), ""
        return 2, _in_one_line(error.format_message())
    except OSError as error:  # of a file that was refused nowhere else
        logger.debug("a file", exc_info=True)
        return 2, _in_one_line(error)
    except (typer.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT, "interrupted"
    except ModuleNotFoundError as error:
        logger.debug("a module", exc_info=True)
        return 2, not_installed(error)
    return status if isinstance(status, int) else 0, ""


def _in_one_line(words: object) -> str:
    return " ".join(str(words).split())
