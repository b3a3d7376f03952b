"""Options of a command from the dataclass of its settings."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_args, get_type_hints

import typer

from gadgets.commands.options import choice, complete_priors
from scoremri_core.errors import InputError

METAVARS = {int: "N", float: "X"}


def from_settings(settings: type, *names: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a command: an option per field of a dataclass replaces its parameter `settings`.

    The command receives the values as a dict, without those that a caller in Python omits. Types
    and defaults are those of the fields, the help is that of the docstring's section Attributes or
    Parameters, and limits are the metadata (see `scoremri_core.options.option`).

    Parameters
    ----------
    settings : type
        A dataclass.
    *names : str
        Fields that become options. Default: all.

    Returns
    -------
    callable
    """
    texts, types = descriptions(settings), get_type_hints(settings)
    chosen = [field for field in fields(settings) if field.init and field.name in (names or texts)]
    known = [field.name for field in chosen]
    options = [_parameter(field, types[field.name], texts[field.name]) for field in chosen]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*arguments: Any, **values: Any) -> Any:
            given = {
                name: _value(name, types[name], values.pop(name))
                for name in known
                if name in values
            }
            return command(*arguments, settings=given, **values)

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            shown = options if parameter.name == "settings" else [parameter]
            parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in shown]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def descriptions(documented: type) -> dict[str, str]:
    """Return the description of each attribute or parameter in a numpydoc docstring."""
    text = inspect.getdoc(documented) or ""
    section = re.search(r"^(?:Attributes|Parameters)\n-+\n(.*?)(?=^\w+\n-+$|\Z)", text, re.M | re.S)
    entries = re.findall(r"^(\w+) : .*\n((?: +.*\n?)*)", section[1] if section else "", re.M)
    return {name: " ".join(lines.split()) for name, lines in entries}


def _parameter(field: Field[Any], kind: Any, text: str) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    hints = dict(field.metadata)
    flags, known = hints.pop("flags", ()), hints.pop("choices", None)
    optional = type(None) in get_args(kind)
    kind = _without_none(kind)
    default = None if field.default is MISSING else field.default
    if get_args(kind):
        kind = str
        default = default and "x".join(map(str, dict.fromkeys(default)))
    if kind in METAVARS:
        hints.setdefault("metavar", METAVARS[kind])
    if hints.get("metavar") == "PRIOR":
        hints["autocompletion"] = complete_priors
    make = typer.Option if known is None else functools.partial(choice, known)
    annotation: Any = Annotated[kind | None if optional else kind, make(*flags, help=text, **hints)]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _without_none(kind: Any) -> Any:
    """Return T of T | None."""
    inner = get_args(kind)
    return inner[0] if type(None) in inner else kind


def _value(name: str, kind: Any, value: Any) -> Any:
    """Parse the text of a tuple: N,N,... or N|YxX."""
    sizes = get_args(_without_none(kind))
    if value is None or not sizes:
        return value
    if sizes[-1] is ...:
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError as error:
            raise InputError(
                f"--{name} {value!r}: expected whole numbers, such as 3,3,3,2"
            ) from error
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"{name.replace('_', ' ')} '{value}': expected N, or YxX such as 192x160")
    return int(sides[0]), int(sides[-1])


def set_defaults(context: typer.Context, values: Mapping[str, Any]) -> None:
    """Replace the defaults of a command's options, except those in the settings file."""
    context.default_map = {**values, **(context.default_map or {})}
