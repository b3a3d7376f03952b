"""Errors that the caller can correct."""

import sys


class InputError(ValueError):
    """Invalid input: the message names the file or argument, the field and what was expected."""


class CalibrationError(InputError):
    """Coil maps cannot be estimated from the calibration lines."""


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
