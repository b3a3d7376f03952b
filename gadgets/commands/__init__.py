"""The command line: one file per command; heavy imports are inside the functions."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

import scoremri_core
from gadgets.commands.common import set_default_log_level, with_common_options
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
    "guarantee",
    "compare",
    "validate",
    "benchmark",
    "train",
    "adapt",
    "measure",
    "import-prior",
    "export",
    "openrecon",
)

# Base class of BadParameter: UsageError of the click that typer bundles.
UsageError: Any = typer.BadParameter.__mro__[1]
app = typer.Typer(
    name="scoremri",
    help="Score-based MRI reconstruction with uncertainty, inside a Gadgetron stream.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"scoremri {scoremri_core.__version__}")
        raise typer.Exit


@app.callback()
@with_common_options
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Score-based MRI reconstruction with uncertainty, inside a Gadgetron stream."""
    set_default_log_level(context)


class _Command(TyperCommand):
    """A command whose help omits the Python types of its arguments."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda ctx: None  # type: ignore[attr-defined]


for _name in COMMANDS:
    _function = _name.replace("-", "_")
    app.command(_name, cls=_Command)(
        with_common_options(getattr(importlib.import_module(f"{__name__}.{_function}"), _function))
    )


@functools.cache
def command_line() -> Any:
    """Return the click command of all commands."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; invalid input ends with one sentence on stderr and code 2.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program's name. None uses `sys.argv`.
    """
    status, message = _run(arguments)
    if message:
        typer.echo(f"scoremri: {message}", err=True)
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Return the exit code and the error message, if any."""
    try:
        status = command_line()(args=arguments, prog_name="scoremri", standalone_mode=False)
    except InputError as error:
        logger.debug("invalid input", exc_info=True)
        return 2, _one_line(error)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return int(error.exit_code), ""
        return 2, _one_line(error.format_message())
    except OSError as error:
        logger.debug("file error", exc_info=True)
        return 2, _one_line(error)
    except typer.Abort:
        return 130, "interrupted"
    except ModuleNotFoundError as error:
        logger.debug("missing module", exc_info=True)
        return 2, not_installed(error)
    return status if isinstance(status, int) else 0, ""


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
