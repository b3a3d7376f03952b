"""The stream of a client, shared by threads."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.wire import Endpoint
from scoremri_core.errors import InputError


class Incoming:
    """Iterator over the items of a client until CLOSE, which may pass between threads.

    Parameters
    ----------
    endpoint : Endpoint
        Connection to the client.
    counts : Counter
        Counts the items received, by type.
    """

    def __init__(self, endpoint: Endpoint, counts: Counter[str]) -> None:
        self.error: Exception | None = None
        self._endpoint = endpoint
        self._counts = counts
        self._ended = False
        self._first: Any = None  # item read by `opening`
        self._lock = threading.Lock()

    def __iter__(self) -> Incoming:
        return self

    def opening(self) -> str | None:
        """Return the TEXT message that begins the stream, or None."""
        with self._lock:
            item = self._read()
            if isinstance(item, str):
                return item
            self._first = item
            return None

    def __next__(self) -> Any:
        with self._lock:
            item, self._first = self._first, None
            while item is None or isinstance(item, str):
                if self._ended:
                    raise StopIteration
                item = self._read()
            self._counts[f"{type(item).__name__.lower()}s received"] += 1
            return item

    def _read(self) -> Any:
        try:
            item = wire.read_message(self._endpoint)
        except Exception as error:
            self._ended, self.error = True, error
            raise
        self._ended = item is None
        return item

    def drain(self) -> None:
        """Discard items until CLOSE or the end of the stream."""
        with contextlib.suppress(InputError, OSError):
            for _ in self:
                pass
