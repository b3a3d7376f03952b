"""Errors that are the caller's to mend, told in one sentence."""

import sys


class InputError(ValueError):
    """Bad input: the message names the file or argument, the field and what was expected."""


class CalibrationError(InputError):
    """Coil maps cannot be estimated from the calibration lines that were received."""


def not_installed(error: ModuleNotFoundError) -> str:
    """One sentence for a module that this Python lacks."""
    name = str(error.name or error).partition(".")[0]
    return f"{sys.executable} has no module '{name}', which scoremri needs: pip install scoremri"
