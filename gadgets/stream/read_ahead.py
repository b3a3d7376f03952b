"""Bounded reading of a stream ahead of its consumer."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gadgets.threads import start

logger = logging.getLogger(__name__)

MAX_FRAMES = 16  # that wait, in addition to those being computed

_END = object()


def read_ahead(
    items: Iterable[Any],
    limit: int = MAX_FRAMES,
    on_loss: Callable[[Exception], None] | None = None,
) -> ReadAhead:
    """Read a stream in a thread, ahead of its consumer.

    Exceptions of `items` are raised to the consumer after the preceding items, a ConnectionError
    (loss of the peer) at once.

    Parameters
    ----------
    items : iterable
        Items of the stream.
    limit : int, optional
        Number of waiting items from which reading pauses, which is logged.
    on_loss : callable, optional
        Called with a ConnectionError of `items`.

    Returns
    -------
    ReadAhead
        Iterable of lists of the items that wait together, in order.
    """
    ahead = ReadAhead(items, limit, on_loss)
    start(ahead.read, name="read-ahead")
    return ahead


class ReadAhead:
    """Stream that is read by a thread until its end or `close`; see `read_ahead`."""

    def __init__(
        self, items: Iterable[Any], limit: int, on_loss: Callable[[Exception], None] | None
    ) -> None:
        self._items = items
        self._limit = limit
        self._on_loss = on_loss
        self._waiting: queue.Queue[Any] = queue.Queue(limit)
        self._stopped = threading.Event()
        self._paused = False
        self._loss: ConnectionError | None = None

    def read(self) -> None:
        """Read the stream; the target of the thread."""
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
        except Exception as error:  # noqa: BLE001  (raised to the consumer)
            self._put(_Failure(error))

    def _put(self, item: Any) -> None:
        if self._waiting.full() and not self._paused:
            logger.info("%d frames wait for reconstruction; reading is paused", self._limit)
            self._paused = True
        elif self._waiting.qsize() <= self._limit // 2:
            self._paused = False
        while not self._stopped.is_set():
            try:
                self._waiting.put(item, timeout=0.2)
                break
            except queue.Full:
                if self._loss is not None:
                    return

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield lists of the items that wait."""
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
