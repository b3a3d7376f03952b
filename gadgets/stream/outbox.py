"""What was computed and waits to be sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import Any

from gadgets.threads import start

IMAGES = 64  # that may wait before the next frame is computed


class Outbox:
    """Filled by one thread, which never waits in the middle of a frame, and emptied by another."""

    def __init__(self, limit: int = IMAGES) -> None:
        self._limit = limit
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._done = False
        self._error: Exception | None = None
        self._abandoned = False

    def wait_for_room(self) -> None:
        """Wait until fewer than `limit` items wait; `Abandoned` if nobody takes them any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or len(self._items) < self._limit)
            if self._abandoned:
                raise Abandoned

    def fill(self, items: Generator[Any]) -> None:
        """Take the items, and the exception that they may end with, in a thread of its own."""

        def run() -> None:
            error = None
            try:
                with closing(items):
                    for item in items:
                        self._put(item)
            except Exception as raised:  # noqa: BLE001  (raised again by the one who empties)
                error = raised
            with self._changed:
                self._done, self._error = True, error
                self._changed.notify_all()

        start(run, name="compute")

    def _put(self, item: Any) -> None:
        with self._changed:
            if self._abandoned:
                raise Abandoned
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Generator[Any]:
        """Items as they come; then what filling them ended with is raised."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._items or self._done)
                    if not self._items:
                        break
                    item = self._items.popleft()
                    self._changed.notify_all()
                yield item
        finally:
            with self._changed:
                self._abandoned = True
                self._items.clear()
                self._changed.notify_all()
        if self._error is not None:
            raise self._error


class Abandoned(Exception):  # noqa: N818  (it says what happened, like StopIteration)
    """Nobody takes what is computed any more."""
