"""Conversion of arbitrary values to DICOM value representations (PS3.5, 6.2)."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

UID = re.compile(r"[012](\.(0|[1-9][0-9]*))+")
DATE = re.compile(r"([0-9]{4})-?(0[1-9]|1[0-2])-?(0[1-9]|[12][0-9]|3[01])")
TIME = re.compile(r"([01][0-9]|2[0-3]):?([0-5][0-9]):?([0-5][0-9])(\.[0-9]{1,6})?")


def text(value: Any, limit: int = 64) -> str:
    """Convert to text (LO, SH, ST, LT), without backslash and control characters.

    Parameters
    ----------
    value : object
    limit : int, optional
        Maximal number of bytes, which is stricter than DICOM's characters.

    Returns
    -------
    str
    """
    plain = str("" if value is None else value).replace("\\", "/")
    plain = "".join(" " if unicodedata.category(one) == "Cc" else one for one in plain)
    return plain.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").strip()


def person(value: Any) -> str:
    """Convert to a person name (PN): up to three groups of five components and 64 bytes."""
    groups = text(value, limit=1024).split("=")[:3]
    limited = (text("^".join(group.split("^")[:5])) for group in groups)
    return "=".join(limited).rstrip("=")


def date(value: Any) -> str:
    """Convert to a date (DA) such as 20190314; empty if invalid."""
    found = DATE.match(str(value))
    return "".join(found.groups()) if found else ""


def time(value: Any) -> str:
    """Convert to a time (TM) such as 235959.5, without time zone; empty if invalid."""
    found = TIME.match(str(value))
    if found is None:
        return ""
    *clock, fraction = found.groups(default="")
    return "".join(clock) + fraction.rstrip("0").rstrip(".")


def uid(value: Any) -> str:
    """Convert to a unique identifier (UI); empty if invalid."""
    plain = str(value).strip()
    return plain if len(plain) <= 64 and UID.fullmatch(plain) else ""


def code(value: Any) -> str:
    """Convert to a code string (CS): 16 upper-case letters, digits, spaces and underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", str(value).upper())[:16].strip()


def number(value: float) -> str:
    """Convert to a decimal string (DS) of at most 16 characters; empty if not finite."""
    if not math.isfinite(value):
        return ""
    value = float(value) + 0.0  # no negative zero
    return f"{value:.9g}" if value >= 0 else f"{value:.8g}"
