"""Observation of a scan as its frames pass through the stream: progress, metrics, pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ismrmrd.xsd import ismrmrdHeader

    from gadgets.stages.frame import Frame
    from scoremri_core import Progress, Reconstruction


class ScanObserver:
    """Observer of one scan, which does nothing; subclasses override what they need.

    The methods are called by the threads that read, compute and send.
    """

    def scan_started(self, header: ismrmrdHeader) -> None:
        """Handle the header of the scan."""

    def frame_received(self) -> None:
        """Handle a frame that is complete and waits for its reconstruction."""

    def level_sampled(self, frames: int, progress: Progress) -> None:
        """Handle the end of a noise level of `frames` frames that are sampled as one batch."""

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        """Handle the reconstruction of a frame."""

    def close(self) -> None:
        """Handle the end of the scan, which may come before all frames are reconstructed."""


class ObserverGroup(ScanObserver):
    """Observers that act as one."""

    def __init__(self, observers: Sequence[ScanObserver]) -> None:
        self._observers = observers

    def scan_started(self, header: ismrmrdHeader) -> None:
        """Notify each observer."""
        for observer in self._observers:
            observer.scan_started(header)

    def frame_received(self) -> None:
        """Notify each observer."""
        for observer in self._observers:
            observer.frame_received()

    def level_sampled(self, frames: int, progress: Progress) -> None:
        """Notify each observer."""
        for observer in self._observers:
            observer.level_sampled(frames, progress)

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        """Notify each observer."""
        for observer in self._observers:
            observer.frame_reconstructed(frame, result)

    def close(self) -> None:
        """Notify each observer."""
        for observer in self._observers:
            observer.close()
