"""Cache of results that several frames share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MAX_ENTRIES = 64


class Memo:
    """Least-recently-used cache of computations on an object, such as calibration lines.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[Any, ...], tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without contents: object identities end with the process."""
        return Memo, ()

    def get(self, source: Any, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """Return the cached result of a computation, or compute it.

        Parameters
        ----------
        source : object
            Input of the computation, compared by identity.
        key : tuple
            All other inputs, hashable.
        compute : callable
            Called without arguments on a miss.

        Returns
        -------
        object
            Result of `compute`.
        """
        full = (id(source), *key)
        with self._lock:
            if full in self._entries:
                self._entries.move_to_end(full)
                known: T = self._entries[full][1]
                return known
        result = compute()
        with self._lock:
            # keep a reference to the source, so that its id is not reused
            self._entries[full] = source, result
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
        return result
