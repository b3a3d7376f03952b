"""Metrics of a server for Prometheus."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gadgets.stages.observer import ScanObserver
from scoremri_core.errors import InputError

if TYPE_CHECKING:
    from gadgets.service.server import Server
    from gadgets.stages.frame import Frame
    from scoremri_core import Reconstruction

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)  # histogram bounds
MISFITS = (0.25, 0.5, 0.8, 1, 1.25, 2, 4, 10, 100)  # histogram bounds


class Metrics:
    """Metrics of one server, in a separate registry.

    Parameters
    ----------
    server : Server
        Read whenever the metrics are collected.

    Raises
    ------
    InputError
        prometheus-client is not installed.
    """

    def __init__(self, server: Server) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise InputError(
                "--status-port needs prometheus-client: pip install 'scoremri[status]'"
            ) from error
        self._prometheus = prometheus
        self._server = server
        self.registry = registry = prometheus.CollectorRegistry()
        self.frames = prometheus.Counter(
            "scoremri_frames", "Reconstructed frames.", registry=registry
        )
        self.fallbacks = prometheus.Counter(
            "scoremri_fallbacks", "Frames with a classical image as a fallback.", registry=registry
        )
        self.waiting = prometheus.Gauge(
            "scoremri_frames_waiting", "Frames waiting to be reconstructed.", registry=registry
        )
        self.seconds = prometheus.Histogram(
            "scoremri_stage_seconds", "Seconds per frame and stage.", ["stage"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.misfit = prometheus.Histogram(
            "scoremri_misfit", "Mean square residual of the samples over the noise variance.",
            buckets=MISFITS, registry=registry,
        )  # fmt: skip
        registry.register(self)

    def collect(self) -> Iterator[Any]:
        """Yield the counts of the server."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        server = self._server
        yield GaugeMetricFamily("scoremri_scans_open", "Scans in progress.", server.scans_open)
        yield GaugeMetricFamily(
            "scoremri_scans_waiting", "Scans waiting for the device.", server.scans_waiting
        )
        done = CounterMetricFamily("scoremri_scans_done", "Finished scans.", labels=["outcome"])
        for outcome, count in server.scans_done.items():
            done.add_metric([outcome], count)
        yield done
        later = CounterMetricFamily(
            "scoremri_later", "Deferred scans (later=true) by outcome.", labels=["outcome"]
        )
        for outcome, count in server.later.outcomes.items():
            later.add_metric([outcome], count)
        yield later

    def scan(self) -> ScanObserver:
        """Return an observer of one scan."""
        return _Scan(self)

    def text(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus' text format, and its content type."""
        latest: bytes = self._prometheus.generate_latest(self.registry)
        return latest, self._prometheus.CONTENT_TYPE_LATEST


class _Scan(ScanObserver):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting = 0
        self._ended = False
        self._lock = threading.Lock()  # one thread reads, another computes

    def frame_received(self) -> None:
        self._wait(1)

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        self._wait(-1)
        metrics = self._metrics
        metrics.frames.inc()
        metrics.fallbacks.inc(bool(result.info.reason))
        for stage, seconds in frame.seconds.items():
            metrics.seconds.labels(stage).observe(seconds)
        misfit = float(np.mean(result.info.misfit))
        if math.isfinite(misfit):  # NaN for some fallbacks
            metrics.misfit.observe(misfit)

    def close(self) -> None:
        self._wait(-self._waiting)
        self._ended = True

    def _wait(self, change: int) -> None:
        with self._lock:
            if not self._ended:
                self._waiting += change
                self._metrics.waiting.inc(change)
