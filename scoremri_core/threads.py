"""Number of threads: OpenMP's for computations, one for NumPy's linear algebra.

BLAS threads do not speed up the small matrices of a scan, occupy the cores while they wait, and
make the rounding of products depend on their number.
"""

from __future__ import annotations

import os
import threading
from contextlib import ContextDecorator
from typing import Any

from threadpoolctl import ThreadpoolController


def cores() -> int:
    """Return the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Return the number of threads for computations on the CPU, that of OpenMP."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(given) if given.isdecimal() and int(given) else cores()


class _OneThread(ContextDecorator):
    """Limit BLAS to one thread while any thread is inside the context."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: Any = None
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                # on each entry, since a library may have been loaded in between
                self._libraries = ThreadpoolController().select(user_api="blas")
                self._release()
                self._limits = self._libraries.limit(limits=1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._release()
                self._limits.restore_original_limits()
                self._release()

    def _release(self) -> None:
        """Release BLAS from the thread that set the limit, as threadpoolctl 3.7 requires."""
        for library in self._libraries.lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


one_thread = _OneThread()
