"""Peak memory of a process."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path


def high_water(pid: int) -> float | None:
    """Return the peak resident memory in MB of a running process; None if it is unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    # a process that starts or ends has no such line
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def own_high_water() -> float:
    """Return the peak resident memory in MB of this process, including interpreter and libraries.

    Uses `getrusage`, in the bytes of macOS, on other systems than Linux, where its peak includes
    the memory of the parent process.
    """
    peak = high_water(os.getpid())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 if peak is None else peak
