"""Reading a stream ahead of its consumer, within bounds."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

FRAMES = 16  # that may wait, while as many are being worked on; then reading waits too

_END = object()


def read_ahead(
    items: Iterable[Any],
    limit: int = FRAMES,
    on_loss: Callable[[Exception], None] | None = None,
) -> Iterator[list[Any]]:
    """Everything of a stream, in its order, in lists of what was waiting.

    A thread reads `items`, so that reading does not wait for the consumer until `limit` items
    wait.  What `items` raises is raised here, after what came before it; `on_loss` is told at
    once where that is the loss of the peer.
    """
    waiting: queue.Queue[Any] = queue.Queue(limit)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.2)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_END)
        except ConnectionError as error:
            if on_loss is not None:
                on_loss(error)
            put(_Failure(error))
        except Exception as error:  # noqa: BLE001  (raised again by the consumer)
            put(_Failure(error))

    threading.Thread(target=read, name="read-ahead", daemon=True).start()
    try:
        while True:
            batch = [waiting.get()]
            while len(batch) < limit and not waiting.empty():
                batch.append(waiting.get())
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
        stopped.set()


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error
