"""How many threads compute: those of OpenMP, and NumPy's linear algebra in one, whoever computes.

The matrices of a scan are small: the threads of OpenBLAS, which spin as they wait, save nothing and
take the cores from whatever else runs.  And the rounding of a product depends on their number, so
that a server and a notebook would differ in the last bits.
"""

from __future__ import annotations

import os
import threading
from contextlib import ContextDecorator
from typing import Any

from threadpoolctl import ThreadpoolController


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Threads that a computation on the CPU takes: as many as OpenMP does."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(given) if given.isdecimal() and int(given) else cores()


class _OneThread(ContextDecorator):
    """Holds BLAS to one thread while anybody is inside; then it is as it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: Any = None
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                # looked up each time: a library may have been loaded since
                self._libraries = ThreadpoolController().select(user_api="blas")
                self._take_over()
                self._limits = self._libraries.limit(limits=1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._take_over()
                self._limits.restore_original_limits()
                self._take_over()

    def _take_over(self) -> None:
        """Release the limit from the thread that set it: since threadpoolctl 3.7, others cannot."""
        for library in self._libraries.lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


one_thread = _OneThread()
