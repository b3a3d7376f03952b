"""The command line: one file a command, heavy imports inside the functions."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import scoremri_core
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

COMMANDS = (
    "demo",
    "replay",
    "serve",
    "check",
    "simulate",
    "undersample",
    "evaluate",
    "validate",
    "benchmark",
    "train",
    "measure",
    "import-prior",
)

# The base of BadParameter is the usage error of the click that typer carries.
UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="scoremri",
    help="Score-based MRI reconstruction with uncertainty, inside a Gadgetron stream.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
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
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends in one sentence on stderr and exit code 2.

    Parameters
    ----------
    arguments : the command line without the program's name; None takes `sys.argv`
    """
    try:
        status = app(args=arguments, prog_name="scoremri", standalone_mode=False)
    except InputError as error:
        logger.debug("bad input", exc_info=True)
        _refuse(str(error))
    except UsageError as error:
        _refuse(error.format_message())
    except typer.Abort:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(message: str) -> None:
    typer.echo(f"scoremri: {' '.join(message.split())}", err=True)
    sys.exit(2)
