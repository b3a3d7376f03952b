"""Values as DICOM's value representations take them, of texts that may be anything (PS3.5, 6.2)."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

UID = re.compile(r"[012](\.(0|[1-9][0-9]*))+")
DATE = re.compile(r"([0-9]{4})-?(0[1-9]|1[0-2])-?(0[1-9]|[12][0-9]|3[01])")
TIME = re.compile(r"([01][0-9]|2[0-3]):?([0-5][0-9]):?([0-5][0-9])(\.[0-9]{1,6})?")


def text(value: Any, limit: int = 64) -> str:
    """One value of text (LO, SH, ST, LT): no backslash, no control characters, within the limit.

    Parameters
    ----------
    limit : of its length in bytes, which is at most what DICOM counts in characters
    """
    plain = str("" if value is None else value).replace("\\", "/")
    plain = "".join(" " if unicodedata.category(one) == "Cc" else one for one in plain)
    return plain.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").strip()


def person(value: Any) -> str:
    """A person's name (PN): up to three groups, of up to five components and 64 bytes each."""
    groups = text(value, limit=1024).split("=")[:3]
    kept = (text("^".join(group.split("^")[:5])) for group in groups)
    return "=".join(kept).rstrip("=")


def date(value: Any) -> str:
    """A date (DA), as 20190314; empty where it is none."""
    found = DATE.match(str(value))
    return "".join(found.groups()) if found else ""


def time(value: Any) -> str:
    """A time (TM), as 235959.5; empty where it is none.  A time zone is left out."""
    found = TIME.match(str(value))
    if found is None:
        return ""
    *clock, fraction = found.groups(default="")
    return "".join(clock) + fraction.rstrip("0").rstrip(".")


def uid(value: Any) -> str:
    """A unique identifier (UI); empty where it is none."""
    plain = str(value).strip()
    return plain if len(plain) <= 64 and UID.fullmatch(plain) else ""


def code(value: Any) -> str:
    """A code string (CS): at most 16 upper-case letters, digits, spaces and underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", str(value).upper())[:16].strip()


def number(value: float) -> str:
    """A decimal string (DS) of at most 16 characters; empty where it is not finite."""
    if not math.isfinite(value):
        return ""
    value = float(value) + 0.0  # no zero has a sign
    return f"{value:.9g}" if value >= 0 else f"{value:.8g}"
