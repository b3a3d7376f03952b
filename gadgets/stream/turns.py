"""Turns at a device that several scans share, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Turns:
    """Queue of scans for one device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """Number of scans that wait for the device."""
        return max(len(self._queue) - 1, 0)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the device and hold it within the context."""
        granted = threading.Event()
        with self._lock:
            self._queue.append(granted)
            self._queue[0].set()
        granted.wait()
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
        """Split waiting items into batches, each processed within a turn.

        A turn ends when the next batch is requested.

        Parameters
        ----------
        batches : iterable of list
            Items that wait together, in order.
        ready : callable
            Blocks until the results of a turn can be taken; called outside of turns.
        kind : type, optional
            Class of the items that need the device; others join the batch of the next of these.
        together : bool, optional
            Whether to batch items while no other scan waits, which is faster on a GPU but delays
            the first image on a CPU.
        most : int, optional
            Maximal items of `kind` in a batch; the first batch has one. Default: no limit.

        Yields
        ------
        list
        """
        first = True  # the first image does not wait for others
        for rest in batches:
            while rest:
                ready()
                with self.turn():
                    single = self.waiting or not together or (first and most is not None)
                    size = _up_to(1 if single else most, kind, rest)
                    batch, rest = rest[:size], rest[size:]
                    yield batch
                first = False


def _up_to(most: int | None, kind: type, items: list[Any]) -> int:
    """Return the number of items up to `most` of a kind."""
    ends = [number for number, item in enumerate(items, start=1) if isinstance(item, kind)]
    return len(items) if most is None or len(ends) < most else ends[most - 1]
