"""Who is told what becomes of the frames of a scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gadgets.stages.frame import Frame
    from scoremri_core import Progress, Reconstruction


class Watch:
    """Watches one scan, whose items pass through it; this one keeps nothing of them."""

    def begins(self, header: Any) -> None:
        """The scan begins, with its ISMRMRD header."""

    def arriving(self, items: Iterable[Any]) -> Iterator[Any]:
        """Frames as they are read, with whatever else the stream holds."""
        from gadgets.stages.frame import Frame

        for item in items:
            if isinstance(item, Frame):
                self.arrived()
            yield item

    def finishing(self, items: Iterable[Any]) -> Iterator[Any]:
        """Each (Frame, Reconstruction) as it is made, with whatever else the stream holds."""
        from gadgets.stages.frame import Frame

        for item in items:
            if isinstance(item, tuple) and isinstance(item[0], Frame):
                self.finished(*item)
            yield item

    def arrived(self) -> None:
        """A frame waits for its reconstruction."""

    def sampling(self, frames: int, progress: Progress) -> None:
        """A noise level of so many frames, which are sampled together, is done."""

    def finished(self, frame: Frame, result: Reconstruction) -> None:
        """A frame has it."""

    def close(self) -> None:
        """The scan has ended, whether or not all its frames were made."""


class Watches(Watch):
    """Several that watch one scan."""

    def __init__(self, each: Sequence[Watch]) -> None:
        self._each = each

    def begins(self, header: Any) -> None:
        """Told to each."""
        for watch in self._each:
            watch.begins(header)

    def arrived(self) -> None:
        """Told to each."""
        for watch in self._each:
            watch.arrived()

    def finished(self, frame: Frame, result: Reconstruction) -> None:
        """Told to each."""
        for watch in self._each:
            watch.finished(frame, result)

    def close(self) -> None:
        """Told to each."""
        for watch in self._each:
            watch.close()
