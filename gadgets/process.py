"""Threads and memory of a scoremri process."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path

from scoremri_core.threads import cores

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
MALLOC_VARIABLES = (
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
# parameters of `mallopt` in malloc.h
ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
SETTINGS = {ARENA_MAX: 1, MMAP_THRESHOLD: 1 << 25, TRIM_THRESHOLD: 1 << 30}


def set_up() -> None:
    """Set threads and memory of the process unless environment variables do.

    Call before torch is imported.
    """
    share_cores()
    keep_memory()


def share_cores() -> None:
    """Let waiting OpenMP threads sleep, and limit their number to the cores of the container.

    Spinning threads slow down other computations, and OpenMP counts the cores of the machine.
    """
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    granted = _container_cores()
    if granted is not None and granted < cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def _container_cores() -> int | None:
    """Return the cores of the control group of this process, rounded up; None: not limited."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None  # not Linux with cgroup v2


def keep_memory() -> None:
    """Keep up to 1 GiB of freed memory for the next frame.

    The C library returns large arrays to the system; the page faults of new ones are slow.
    """
    if any(name in os.environ for name in MALLOC_VARIABLES):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc only
        for parameter, value in SETTINGS.items():
            library.mallopt(parameter, value)
