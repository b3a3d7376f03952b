"""The noise covariance of a stream: from its noise scan, from a number, or left to the data."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.gridding import Assembled

logger = logging.getLogger(__name__)

SAMPLES_PER_CHANNEL = 4  # of a noise scan at least: of fewer, some mixture of channels looks quiet
FAR = 2.0  # sd of the edges of k-space over that of whitened data, or its inverse, at most
DEAD = 1e-6  # variance of a channel over the median of all, below which it is not connected


class NoiseScan:
    """Collects noise readouts and scales their covariance to the imaging data.

    Parameters
    ----------
    header : ISMRMRD header; gives the relative receiver noise bandwidth.
    properties : `noise` chooses the source.
    """

    def __init__(self, header: Any, properties: Properties) -> None:
        """Start without any noise readout."""
        system = header.acquisitionSystemInformation
        self._bandwidth = (system and system.relativeReceiverNoiseBandwidth) or 1.0
        self._source = properties.noise
        self._readouts: list[np.ndarray] = []
        self._dwell = 0.0
        self._known: dict[tuple[int, float], np.ndarray | None] = {}

    def add(self, acquisition: Any) -> None:
        """Keep one noise readout."""
        self._readouts.append(np.asarray(acquisition.data))
        self._dwell = acquisition.sample_time_us
        self._known.clear()

    def covariance(self, channels: int, dwell: float) -> np.ndarray | None:
        """E[n n^H] (coil, coil) of one imaging readout, or None where it is to be estimated.

        The same array comes back as long as nothing changes.

        Parameters
        ----------
        channels : of the imaging data.
        dwell : sampling time of the imaging data, microseconds; 0 where not known.

        Raises
        ------
        InputError
            Where the noise scan was asked for and there is none that fits.
        """
        key = channels, dwell
        if key not in self._known:
            self._known[key] = self._computed(channels, dwell)
        return self._known[key]

    def checked(self, covariance: np.ndarray | None, frame: Assembled) -> np.ndarray | None:
        """The covariance, or None where a noise scan is louder than all of the frame it is for.

        Raises
        ------
        InputError
            Where the noise scan was asked for.
        """
        if covariance is None or isinstance(self._source, float):
            return covariance
        loudest = float(np.abs(frame.values).max(initial=0))
        fewest = float(frame.averages[frame.averages > 0].min(initial=np.inf))
        sigma = float(np.sqrt(np.mean(np.diagonal(covariance).real) / fewest))
        if not loudest or sigma <= loudest:
            return covariance
        self._refused(
            InputError(f"the noise scan has sd {sigma:.3g}, the largest sample is {loudest:.3g}")
        )
        return None

    def _refused(self, error: InputError) -> None:
        if self._source == "scan":
            raise InputError(f"noise=scan: {error}") from error
        logger.warning("Noise is estimated from the data: %s", error)

    def _computed(self, channels: int, dwell: float) -> np.ndarray | None:
        if isinstance(self._source, float):
            return 2 * self._source**2 * np.eye(channels, dtype=complex)
        if self._source == "estimate":
            return None
        if self._source != "scan" and not self._readouts:
            return None
        try:
            return self._scanned(channels, dwell)
        except InputError as error:
            self._refused(error)
            return None

    def _scanned(self, channels: int, dwell: float) -> np.ndarray:
        from scoremri_core.mri.noise.covariance import covariance_from_scan

        fitting = [readout for readout in self._readouts if len(readout) == channels]
        if not fitting:
            raise InputError(f"no noise readout of {channels} channels came")
        samples = np.concatenate(fitting, axis=1)
        if samples.shape[1] < SAMPLES_PER_CHANNEL * channels:
            raise InputError(
                f"the noise scan has {samples.shape[1]} samples for {channels} channels: "
                f"expected at least {SAMPLES_PER_CHANNEL * channels}"
            )
        ratio = self._dwell / dwell if self._dwell > 0 and dwell > 0 else 1.0
        return _revived(covariance_from_scan(samples, ratio, self._bandwidth))


class Whitened(NoiseScan):
    """The noise of data that Gadgetron whitened, each real component with standard deviation 1.

    Where there was no noise scan, in the stream or stored, NoiseAdjustGadget hands the data on as
    they are, and says nothing: the edges of k-space tell, those of the first frame that has any.
    """

    _whitened: bool | None = None  # not known yet

    def checked(self, covariance: np.ndarray | None, frame: Assembled) -> np.ndarray | None:
        """The covariance, or None where the edges of k-space show another by far."""
        from scoremri_core.mri.noise.covariance import covariance_from_edges, noise_sigma

        if self._whitened is None and covariance is not None and frame.values.any():
            expected = noise_sigma(covariance)
            try:
                found = noise_sigma(covariance_from_edges(*_outermost(frame)))
            except InputError:  # too few samples to tell
                return covariance
            self._whitened = 1 / FAR < found / expected < FAR
            if not self._whitened:
                logger.warning(
                    "noise=scan: data that Gadgetron whitened have noise of sd %.3g, the edges of "
                    "k-space show %.3g; no noise scan came or was stored, it seems, and the noise "
                    "is estimated from the data",
                    expected,
                    found,
                )
        return None if self._whitened is False else covariance

    def _computed(self, channels: int, dwell: float) -> np.ndarray | None:
        return 2 * np.eye(channels, dtype=complex)


def _outermost(frame: Assembled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K-space (coil, y, x), averages and mask (y, x).

    Of a volume those of the partition farthest out that has many samples.
    """
    values, averages = frame.values, frame.averages
    if values.ndim == 4:
        count = (averages > 0).sum(axis=(1, 2))
        full = np.flatnonzero(count >= count.max() / 2)
        far = full[np.argmax(np.abs(full - len(count) // 2))]
        values, averages = values[:, far], averages[far]
    return values, averages, averages > 0


def _revived(covariance: np.ndarray) -> np.ndarray:
    """The covariance with the variance of the others in channels that received nothing.

    Were it left at zero, what the imaging data hold of such a channel would be taken for exact.
    """
    variance = np.diagonal(covariance).real
    usual = float(np.median(variance[variance > 0])) if variance.any() else 0.0
    if not 0 < usual < np.inf:
        raise InputError("the noise scan holds nothing but zeros")
    dead = variance < DEAD * usual
    if dead.any():
        numbers = ", ".join(str(channel) for channel in np.flatnonzero(dead))
        logger.warning(
            "The noise scan of channel %s is empty: its noise is taken to be that of the others",
            numbers,
        )
        covariance = covariance + np.diag(np.where(dead, usual, 0))
    return covariance
