"""Peak memory of a process."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path


def high_water(pid: int) -> float | None:
    """Peak resident memory in MB of a running process; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    # a process that is about to end, or has not begun, has no memory of its own
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def own_high_water() -> float:
    """Peak resident memory in MB of this process, interpreter and libraries included.

    Elsewhere than on Linux it is the peak of `getrusage`, in the bytes of macOS.  On Linux that
    one would not do: it begins with the memory of the process that started this one.
    """
    peak = high_water(os.getpid())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 if peak is None else peak
