"""The noise covariance of a stream: from its noise scan, from a number, or left to the data."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)


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
        self._known: dict[tuple[int, float, float], np.ndarray | None] = {}

    def add(self, acquisition: Any) -> None:
        """Keep one noise readout."""
        self._readouts.append(np.asarray(acquisition.data))
        self._dwell = acquisition.sample_time_us
        self._known.clear()

    def covariance(self, channels: int, dwell: float, variance: float = 1.0) -> np.ndarray | None:
        """E[n n^H] (coil, coil) of imaging data, or None where it is to be estimated.

        The same array comes back as long as nothing changes.

        Parameters
        ----------
        channels : of the imaging data.
        dwell : sampling time of the imaging data, microseconds; 0 where not known.
        variance : of the data over that of a single readout, where readouts were averaged.

        Raises
        ------
        InputError
            Where the noise scan was asked for and there is none that fits.
        """
        key = channels, dwell, variance
        if key not in self._known:
            single = self._computed(channels, dwell)
            self._known[key] = None if single is None else variance * single
        return self._known[key]

    def _computed(self, channels: int, dwell: float) -> np.ndarray | None:
        if isinstance(self._source, float):
            return 2 * self._source**2 * np.eye(channels, dtype=complex)
        if self._source == "estimate":
            return None
        fitting = [readout for readout in self._readouts if len(readout) == channels]
        if not fitting:
            if self._source == "scan":
                raise InputError(f"noise=scan, but no noise readout of {channels} channels came")
            return None
        from scoremri_core.mri.noise import covariance_from_scan

        ratio = self._dwell / dwell if self._dwell > 0 and dwell > 0 else 1.0
        try:
            return covariance_from_scan(np.concatenate(fitting, axis=1), ratio, self._bandwidth)
        except InputError as error:
            if self._source == "scan":
                raise
            logger.warning("Noise is estimated from the data: %s", error)
            return None
