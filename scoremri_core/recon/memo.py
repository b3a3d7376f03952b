"""Results that serve several frames, kept by what they were computed from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

KEPT = 64


class Memo:
    """Keeps the last results of computations on an object, such as the calibration lines of a scan.

    A kept result is what the computation would give again, to the last bit.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its contents, since identities do not outlive the process."""
        return Memo, ()

    def get(self, source: Any, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The kept result for a source and a key, or else that of `compute`.

        Parameters
        ----------
        source : object
            Recognised by its identity.
        key : tuple
            Everything else that the result depends on.
        compute : callable
        """
        full = (id(source), *key)
        with self._lock:
            if full in self._kept:
                self._kept.move_to_end(full)
                known: T = self._kept[full][1]
                return known
        result = compute()
        with self._lock:
            # the source is kept as well, so that no other object takes its id
            self._kept[full] = source, result
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return result
