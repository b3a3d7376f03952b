"""Errors that are the caller's to mend, told in one sentence."""


class InputError(ValueError):
    """Bad input: the message names the file or argument, the field and what was expected."""


class CalibrationError(InputError):
    """Coil maps cannot be estimated from the calibration lines that were received."""
