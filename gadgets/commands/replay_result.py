"""What a replay produced, for people and for programs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from scoremri_core.text import counted


@dataclass
class ReplayResult:
    """Images of a replay and what happened to it.

    Attributes
    ----------
    source : str
        The scan.
    files : list of str
        Files and folders that were written.
    series : dict of str to dict
        By name in the file: number of images and description.
    frames : int
        Number of frames, by the images of the first series.
    fallbacks : list of str
        Reason of each frame that is a classical image.
    seconds : float
        Duration.
    warnings : list of str
        Messages of the log.
    error : str or None
        Why there are no images.
    """

    source: str
    files: list[str] = field(default_factory=list)
    series: dict[str, dict[str, Any]] = field(default_factory=dict)
    frames: int = 0
    fallbacks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    def receiving(self, items: Iterable[Any]) -> Iterator[Any]:
        """Count the frames, fallbacks and series of a stream of images."""
        first = None
        for item in items:
            number = getattr(item, "image_series_index", None)
            if number is not None:
                meta = item.meta
                title = str(meta.get("SeriesDescription", ""))
                self.series.setdefault(f"image_{number}", {"images": 0, "description": title})
                first = number if first is None else first
                self.frames += number == first
                if number == first and "fallback" in meta:
                    self.fallbacks.append(str(meta["fallback"]))
            yield item

    def count(self, images: dict[str, int]) -> None:
        """Set the number of images by the name of their series."""
        for name, number in images.items():
            self.series.setdefault(name, {"description": ""})["images"] = number

    @property
    def line(self) -> str:
        """One line for a person."""
        if self.error is not None:
            return self.error if self.source in self.error else f"{self.source}: {self.error}"
        parts = [counted(self.frames, "frame"), f"{self.seconds:.1f} s"]
        if self.fallbacks:
            parts.insert(1, f"{len(self.fallbacks)} classical ({self.fallbacks[0]})")
        if self.warnings:
            parts.append(counted(len(self.warnings), "warning"))
        return f"{self.source}: {', '.join(parts)}: {', '.join(self.files)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON."""
        return asdict(self)


@contextmanager
def collected_warnings(messages: list[str]) -> Iterator[None]:
    """Append the warnings that the package logs."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector = Collector(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("scoremri_core", "gadgets")]
    for each in loggers:
        each.addHandler(collector)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(collector)
