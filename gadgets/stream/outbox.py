"""Queue of images that are computed and not sent yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import Any

from gadgets.threads import start

MAX_IMAGES = 64  # in the queue when the next frame is computed


class Outbox:
    """Queue of images, filled by one thread, which never waits within a frame, and read by another.

    Parameters
    ----------
    limit : int, optional
        Number of items from which `wait_for_room` waits.
    """

    def __init__(self, limit: int = MAX_IMAGES) -> None:
        self._limit = limit
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._done = False
        self._error: Exception | None = None
        self._abandoned = False

    def wait_for_room(self) -> None:
        """Wait until fewer than `limit` items are queued.

        Raises
        ------
        Abandoned
            The reader has stopped.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or len(self._items) < self._limit)
            if self._abandoned:
                raise Abandoned

    def fill(self, items: Generator[Any]) -> None:
        """Queue items in a new thread; an exception of theirs is raised to the reader."""

        def run() -> None:
            error = None
            try:
                with closing(items):
                    for item in items:
                        self._put(item)
            except Exception as raised:  # noqa: BLE001  (raised to the reader)
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
        """Yield the items, then raise the exception that ended them, if any."""
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


class Abandoned(Exception):  # noqa: N818  (a signal, like StopIteration)
    """The reader of an Outbox has stopped."""
