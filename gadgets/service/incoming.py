"""What a client sends, for whichever thread takes it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.wire import Endpoint
from scoremri_core.errors import InputError


class Incoming:
    """What a client sends, until its CLOSE: for a thread that feeds a chain, then for another."""

    def __init__(self, endpoint: Endpoint, counts: Counter[str]) -> None:
        self.error: Exception | None = None
        self._endpoint = endpoint
        self._counts = counts
        self._ended = False
        self._first: Any = None  # read already
        self._lock = threading.Lock()

    def __iter__(self) -> Incoming:
        return self

    def opening(self) -> str | None:
        """The text that the stream begins with, if it begins with one."""
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
        """Drop what still comes, until CLOSE or an end without it."""
        with contextlib.suppress(InputError, OSError):
            for _ in self:
                pass
