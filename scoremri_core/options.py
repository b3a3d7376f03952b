"""Fields of settings that are options of a command, too."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, **hints: Any) -> Any:
    """Return a dataclass field with a default and hints for a user interface.

    Parameters
    ----------
    default
    **hints
        `min` and `max`; `choices`, the valid words; `flags`, the names of the option, if they
        differ from that of the field; `metavar`, the form of the value; `show_default`, what None
        stands for.

    Returns
    -------
    dataclasses.Field
    """
    return field(default=default, metadata=hints)
