"""Reading a stream ahead of its consumer, within bounds."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gadgets.threads import start

logger = logging.getLogger(__name__)

FRAMES = 16  # that may wait, while as many are being worked on; then reading waits too

_END = object()


def read_ahead(
    items: Iterable[Any],
    limit: int = FRAMES,
    on_loss: Callable[[Exception], None] | None = None,
) -> ReadAhead:
    """Everything of a stream, in its order, in lists of what was waiting.

    A thread reads `items` from now on, so that reading does not wait for the consumer until
    `limit` items wait, which is logged.  What `items` raises is raised here, after what came
    before it; but the loss of the peer at once, for nobody is there to be sent anything, and
    `on_loss` is told of it.
    """
    ahead = ReadAhead(items, limit, on_loss)
    start(ahead.read, name="read-ahead")
    return ahead


class ReadAhead:
    """A stream that is read by a thread until its end, or until it is closed here."""

    def __init__(
        self, items: Iterable[Any], limit: int, on_loss: Callable[[Exception], None] | None
    ) -> None:
        self._items = items
        self._limit = limit
        self._on_loss = on_loss
        self._waiting: queue.Queue[Any] = queue.Queue(limit)
        self._stopped = threading.Event()
        self._told = False  # that reading waits
        self._loss: ConnectionError | None = None

    def read(self) -> None:
        """Read it all."""
        try:
            for item in self._items:
                self._put(item)
                if self._stopped.is_set():
                    return
            self._put(_END)
        except ConnectionError as error:
            self._loss = error
            if self._on_loss is not None:
                self._on_loss(error)
            self._put(_Failure(error))
        except Exception as error:  # noqa: BLE001  (raised again by the consumer)
            self._put(_Failure(error))

    def _put(self, item: Any) -> None:
        if self._waiting.full() and not self._told:
            logger.info("%d frames wait to be computed: reading waits too", self._limit)
            self._told = True
        elif self._waiting.qsize() <= self._limit // 2:
            self._told = False
        while not self._stopped.is_set():
            try:
                self._waiting.put(item, timeout=0.2)
                break
            except queue.Full:
                if self._loss is not None:
                    return

    def close(self) -> None:
        """Read no further."""
        self._stopped.set()

    def __iter__(self) -> Iterator[list[Any]]:
        """Lists of what was waiting."""
        try:
            while True:
                batch = [self._waiting.get()]
                while len(batch) < self._limit and not self._waiting.empty():
                    batch.append(self._waiting.get())
                if self._loss is not None:
                    raise self._loss
                last = batch[-1]
                if last is not _END and not isinstance(last, _Failure):
                    yield batch
                    continue
                if batch[:-1]:
                    yield batch[:-1]
                if isinstance(last, _Failure):
                    raise last.error
                return
        finally:
            self._stopped.set()


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error
