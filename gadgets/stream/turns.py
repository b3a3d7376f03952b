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
        most: int | None = None,
    ) -> Generator[list[Any]]:
        """Hand out what waits, each part within a turn, which ends as the next one is asked for.

        Parameters
        ----------
        batches : lists of frames and whatever else the stream holds, in its order.
        ready : waits until the results of a turn can be taken; called outside of turns.
        kind : class of the items that need the device; the others go with the next of these.
        together : whether items that wait are handed over together while nobody else wants the
            device.  A GPU gains by it; a CPU does not, and its first image would come late.
        most : items of that class that are handed over together, after the first one; None for
            all.
        """
        first = True  # its image should not wait for those of others
        for rest in batches:
            while rest:
                ready()
                with self.turn():
                    alone = self.waiting or not together or (first and most is not None)
                    size = _up_to(1 if alone else most, kind, rest)
                    part, rest = rest[:size], rest[size:]
                    yield part
                first = False


def _up_to(most: int | None, kind: type, items: list[Any]) -> int:
    """How many items there are up to so many of a kind."""
    found = [number for number, item in enumerate(items, start=1) if isinstance(item, kind)]
    return len(items) if most is None or len(found) < most else found[most - 1]
