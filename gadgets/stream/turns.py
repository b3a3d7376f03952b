"""Turns at a device that several scans share: first come, first served, a frame at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Turns:
    """A queue for one device."""

    def __init__(self) -> None:
        """Begin with nobody in it."""
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """How many scans want the device and do not have it."""
        return max(len(self._queue) - 1, 0)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the device, once those who came before are done with it."""
        mine = threading.Event()
        with self._lock:
            self._queue.append(mine)
            self._queue[0].set()
        mine.wait()
        try:
            yield
        finally:
            with self._lock:
                self._queue.popleft()
                if self._queue:
                    self._queue[0].set()

    def batches(
        self,
        batches: Iterable[list[Any]],
        ready: Callable[[], None],
        kind: type = object,
        together: bool = True,
    ) -> Generator[list[Any]]:
        """Hand out what waits, each part within a turn, which ends as the next one is asked for.

        Parameters
        ----------
        batches : lists of frames and whatever else the stream holds, in its order.
        ready : waits until the results of a turn can be taken; called outside of turns.
        kind : class of the items that need the device; the others go with the next of these.
        together : whether items that wait are handed over together while nobody else wants the
            device.  A GPU gains by it; a CPU does not, and its first image would come late.
        """
        for rest in batches:
            while rest:
                ready()
                with self.turn():
                    alone = self.waiting or not together
                    size = _to_next(kind, rest) if alone else len(rest)
                    part, rest = rest[:size], rest[size:]
                    yield part


def _to_next(kind: type, items: list[Any]) -> int:
    """How many items there are up to the first of a kind."""
    for number, item in enumerate(items, start=1):
        if isinstance(item, kind):
            return number
    return len(items)
