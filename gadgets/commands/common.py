"""Options of every command, given before or after its name: the log and the settings file."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gadgets.commands.log import configure_logging
from scoremri_core.errors import InputError, similar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LEVELS = ("debug", "info", "warning", "error")
_LEVEL = "scoremri.level"


def with_common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command; they take effect while the command line is parsed."""
    common = inspect.signature(_common, eval_str=True).parameters
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        return command(**{name: value for name, value in values.items() if name not in common})

    given = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values()]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*given, *common.values()]
    )
    run.__annotations__ = {}
    return run


def set_log_level(context: typer.Context, level: str) -> None:
    """Set the level of the log; a later call replaces it."""
    context.meta[_LEVEL] = level
    configure_logging(getattr(logging, level.upper()))


def set_default_log_level(context: typer.Context) -> None:
    """Log from level info on, unless an option has set the level."""
    if _LEVEL not in context.meta:
        set_log_level(context, "info")


def _if_given(level: str) -> Callable[[typer.Context, bool], bool]:
    def callback(context: typer.Context, given: bool) -> bool:
        if given:
            set_log_level(context, level)
        return given

    return callback


def _take_level(context: typer.Context, level: str | None) -> str | None:
    if level is not None:
        if level not in LEVELS:
            raise InputError(f"log level '{level}': expected one of {', '.join(LEVELS)}")
        set_log_level(context, level)
    return level


def _take_settings(context: typer.Context, path: Path | None) -> Path | None:
    """Use the options in a file as defaults: the table of a command, or of all commands."""
    if path is not None:
        group = context.parent or context
        commands: dict[str, Any] = group.command.commands  # type: ignore[attr-defined]
        values = read_settings(path, {name: each.params for name, each in commands.items()})
        if context.parent is None:
            context.default_map = values
        else:
            chosen = values.get(context.info_name or "", {})
            context.default_map = {**(context.default_map or {}), **chosen}
    return path


def _common(
    *,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            help="Log details, and tracebacks of errors.",
            callback=_if_given("debug"),
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", help="Log only warnings, no progress.", callback=_if_given("warning")
        ),
    ] = False,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar=f"[{'|'.join(LEVELS)}]",
            help="Least level of the log.",
            show_default="info",
            callback=_take_level,
            autocompletion=lambda incomplete: [
                each for each in LEVELS if each.startswith(incomplete)
            ],
        ),
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            metavar="FILE.toml",
            help="Options by command; the command line takes precedence.",
            show_default="none",
            is_eager=True,
            callback=_take_settings,
        ),
    ] = None,
) -> None:
    """Declare the common options."""


def read_settings(path: Path, commands: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Read the options of commands from a TOML file.

    Parameters
    ----------
    path : Path
        A table for each command, its keys the long names of options, without the hyphens in front:
        ``[replay]``, ``config = "score_recon.xml"``, ``property = {samples = 16}``.
    commands : dict of str to list of click.Parameter
        Parameters of each command.

    Returns
    -------
    dict of str to dict
        Values by command and name of the parameter.

    Raises
    ------
    InputError
        Not a TOML file; an unknown command or option; a list for an option that takes one value.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a TOML file ({error})") from error
    found: dict[str, dict[str, Any]] = {}
    for command, table in document.items():
        _check_known(command, commands, f"{path}: command")
        if not isinstance(table, dict):
            raise InputError(f"{path}: {command}: expected a table, [{command}]")
        options = {
            flag.lstrip("-"): parameter
            for parameter in commands[command]
            for flag in parameter.opts
            if flag.startswith("--") and parameter.name != "settings_file"
        }
        found[command] = {}
        for key, value in table.items():
            _check_known(key, options, f"{path}: {command}: option")
            found[command][options[key].name] = _value(
                f"{path}: {command}: {key}", value, options[key].multiple
            )
    return found


def _value(where: str, value: Any, multiple: bool) -> Any:
    """Return the value of an option; a table is a list of KEY=VALUE."""
    if multiple and isinstance(value, dict):
        return [f"{key}={each}" for key, each in value.items()]
    if multiple:
        return value if isinstance(value, list) else [value]
    if isinstance(value, list | dict):
        raise InputError(f"{where}: expected one value")
    return value


def _check_known(name: str, known: Iterable[str], what: str) -> None:
    if name not in known:
        raise InputError(f"{what} '{name}'{similar(name, known)}")
