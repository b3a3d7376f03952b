"""Noise covariance of a scan: from its noise scan, a given standard deviation, or the data."""

from __future__ import annotations

import logging

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.gridding import Assembled

logger = logging.getLogger(__name__)

MIN_SAMPLES_PER_CHANNEL = 4  # of a noise scan; fewer underestimate the smallest eigenvalues
MAX_RATIO = 2.0  # sd at the edges of k-space over that of whitened data, or its inverse
MIN_VARIANCE = 1e-6  # of a channel over the median of all, below which it is not connected


class NoiseScan:
    """Noise covariance from noise readouts, scaled to the imaging data.

    Parameters
    ----------
    header : ismrmrdHeader
        With the relative receiver noise bandwidth.
    properties : Properties
        Of the node; `noise` is the source.
    """

    def __init__(self, header: ismrmrdHeader, properties: Properties) -> None:
        system = header.acquisitionSystemInformation
        self._bandwidth = (system and system.relativeReceiverNoiseBandwidth) or 1.0
        self._source = properties.noise
        self._readouts: list[np.ndarray] = []
        self._dwell = 0.0
        self._cache: dict[tuple[int, float], np.ndarray | None] = {}

    def add(self, acquisition: ismrmrd.Acquisition) -> None:
        """Add a noise readout."""
        self._readouts.append(np.asarray(acquisition.data))
        self._dwell = acquisition.sample_time_us
        self._cache.clear()

    def covariance(self, channels: int, dwell: float) -> np.ndarray | None:
        """Return the noise covariance E[n n^H] of an imaging readout.

        Parameters
        ----------
        channels : int
            Of the imaging data.
        dwell : float
            Sampling time of the imaging data in microseconds; 0 if unknown.

        Returns
        -------
        complex array, (coil, coil), or None
            None: to be estimated from the data. The same object until a readout is added.

        Raises
        ------
        InputError
            noise=scan, and there is no valid noise scan.
        """
        key = channels, dwell
        if key not in self._cache:
            self._cache[key] = self._compute(channels, dwell)
        return self._cache[key]

    def validated(self, covariance: np.ndarray | None, frame: Assembled) -> np.ndarray | None:
        """Return the covariance if it is compatible with the data of a frame.

        Parameters
        ----------
        covariance : complex array, (coil, coil), or None
        frame : Assembled
            K-space of the frame.

        Returns
        -------
        complex array, (coil, coil), or None
            None if the noise sd exceeds every sample of the frame.

        Raises
        ------
        InputError
            noise=scan, and the noise sd exceeds every sample.
        """
        if covariance is None or isinstance(self._source, float):
            return covariance
        loudest = float(np.abs(frame.values).max(initial=0))
        fewest = float(frame.averages[frame.averages > 0].min(initial=np.inf))
        sigma = float(np.sqrt(np.mean(np.diagonal(covariance).real) / fewest))
        if not loudest or sigma <= loudest:
            return covariance
        self._reject(
            InputError(f"the noise scan has sd {sigma:.3g}, the largest sample is {loudest:.3g}")
        )
        return None

    def _reject(self, error: InputError) -> None:
        if self._source == "scan":
            raise InputError(f"noise=scan: {error}") from error
        logger.warning("Estimating the noise from the data: %s", error)

    def _compute(self, channels: int, dwell: float) -> np.ndarray | None:
        if isinstance(self._source, float):
            return 2 * self._source**2 * np.eye(channels, dtype=complex)
        if self._source == "estimate":
            return None
        if self._source != "scan" and not self._readouts:
            return None
        try:
            return self._from_scan(channels, dwell)
        except InputError as error:
            self._reject(error)
            return None

    def _from_scan(self, channels: int, dwell: float) -> np.ndarray:
        from scoremri_core.mri.noise.covariance import covariance_from_scan

        matching = [readout for readout in self._readouts if len(readout) == channels]
        if not matching:
            raise InputError(f"no noise readout of {channels} channels was acquired")
        samples = np.concatenate(matching, axis=1)
        if samples.shape[1] < MIN_SAMPLES_PER_CHANNEL * channels:
            raise InputError(
                f"the noise scan has {samples.shape[1]} samples for {channels} channels: "
                f"expected at least {MIN_SAMPLES_PER_CHANNEL * channels}"
            )
        ratio = self._dwell / dwell if self._dwell > 0 and dwell > 0 else 1.0
        return _fill_dead_channels(covariance_from_scan(samples, ratio, self._bandwidth))


class WhitenedNoise(NoiseScan):
    """Noise of data whitened by Gadgetron, each real component with standard deviation 1.

    Without a noise scan, in the stream or stored, NoiseAdjustGadget passes the data unchanged and
    does not report it. The noise at the edges of k-space of the first frame reveals this.
    """

    _whitened: bool | None = None  # None: unknown

    def validated(self, covariance: np.ndarray | None, frame: Assembled) -> np.ndarray | None:
        """Return the covariance, or None if the noise at the edges of k-space contradicts it."""
        from scoremri_core.mri.noise.covariance import covariance_from_edges, noise_sigma

        if self._whitened is None and covariance is not None and frame.values.any():
            expected = noise_sigma(covariance)
            try:
                found = noise_sigma(covariance_from_edges(*_edge_partition(frame)))
            except InputError:  # too few samples
                return covariance
            self._whitened = 1 / MAX_RATIO < found / expected < MAX_RATIO
            if not self._whitened:
                logger.warning(
                    "noise=scan: noise sd is %.3g in whitened data, %.3g at the edges of k-space; "
                    "probably no noise scan was acquired or stored. Estimating the noise from the "
                    "data",
                    expected,
                    found,
                )
        return None if self._whitened is False else covariance

    def _compute(self, channels: int, dwell: float) -> np.ndarray | None:
        return 2 * np.eye(channels, dtype=complex)


def _edge_partition(frame: Assembled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return k-space (coil, y, x), averages and mask (y, x).

    Of a volume: those of the outermost partition with at least half of the maximal samples.
    """
    values, averages = frame.values, frame.averages
    if values.ndim == 4:
        count = (averages > 0).sum(axis=(1, 2))
        full = np.flatnonzero(count >= count.max() / 2)
        far = full[np.argmax(np.abs(full - len(count) // 2))]
        values, averages = values[:, far], averages[far]
    return values, averages, averages > 0


def _fill_dead_channels(covariance: np.ndarray) -> np.ndarray:
    """Give channels without signal the median variance, so that their data are not noise-free."""
    variance = np.diagonal(covariance).real
    median = float(np.median(variance[variance > 0])) if variance.any() else 0.0
    if not 0 < median < np.inf:
        raise InputError("all samples of the noise scan are zero")
    dead = variance < MIN_VARIANCE * median
    if dead.any():
        numbers = ", ".join(str(channel) for channel in np.flatnonzero(dead))
        logger.warning(
            "Channels without signal in the noise scan: %s; using the median noise of the others",
            numbers,
        )
        covariance = covariance + np.diag(np.where(dead, median, 0))
    return covariance
