"""Errors that the caller can correct."""

import sys
from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Invalid input: the message names the file or argument, the field and what was expected."""


class CalibrationError(InputError):
    """Coil maps cannot be estimated from the calibration lines."""


def similar(name: str, known: Iterable[str]) -> str:
    """List the known names for an error message, and suggest the one closest to `name`.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        Valid names.

    Returns
    -------
    str
        Follows the unknown name in the message.
    """
    known = list(known)
    suggestion = "".join(f" (did you mean '{word}'?)" for word in get_close_matches(name, known, 1))
    return f"{suggestion}: known are {', '.join(known)}"


def not_installed(error: ModuleNotFoundError) -> str:
    """Describe a missing module and how to install it.

    Parameters
    ----------
    error : ModuleNotFoundError

    Returns
    -------
    str
    """
    name = str(error.name or error).partition(".")[0]
    return f"{sys.executable} has no module '{name}', which scoremri needs: pip install scoremri"
