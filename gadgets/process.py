"""What a process that is this package's own sets for its threads and its memory."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path

from scoremri_core.threads import cores

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's threads wait
MALLOC = ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
# of malloc.h: the parameters of `mallopt`, and what they are set to
ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
SETTINGS = {ARENA_MAX: 1, MMAP_THRESHOLD: 1 << 25, TRIM_THRESHOLD: 1 << 30}


def set_up() -> None:
    """To be called before torch is loaded.  What the environment says stays."""
    share_cores()
    keep_memory()


def share_cores() -> None:
    """Let OpenMP's threads sleep while they wait, and have no more of them than cores.

    Threads that spin take the cores from those that they wait for, where others compute as well;
    and OpenMP counts the cores of the machine, of which a container may have the use of fewer.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    granted = _granted()
    if granted is not None and granted < cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def _granted() -> int | None:
    """How many cores the control group of this process may use, rounded up; None if all."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None  # another system than Linux, or an older one


def keep_memory() -> None:
    """Keep what a frame gives back for the next one, up to 1 GiB.

    The C library returns large arrays to the system, and a page that comes again costs more than
    much of what is computed in it.
    """
    if any(name in os.environ for name in MALLOC):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc alone has it
        for parameter, value in SETTINGS.items():
            library.mallopt(parameter, value)
