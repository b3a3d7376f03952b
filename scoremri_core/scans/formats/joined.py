"""Scans with a noise scan or a separate reference scan before the imaging lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_header_dtype

from scoremri_core.errors import InputError
from scoremri_core.scans.flags import CALIBRATION, NOISE
from scoremri_core.scans.formats.array_scan import ArrayScan

MAX_SAMPLES = int(np.iinfo(np.uint16).max)  # of an ISMRMRD readout


def with_reference(scan: ArrayScan, reference: ArrayScan) -> ArrayScan:
    """Prepend a separate reference scan.

    Parameters
    ----------
    scan, reference : ArrayScan
        The lines of `reference` become calibration lines.

    Returns
    -------
    ArrayScan
    """
    heads = reference.heads()
    heads["flags"] = CALIBRATION
    encoding = scan.header.encoding[0]
    if encoding.parallelImaging is None:
        factor = xsd.accelerationFactorType(kspace_encoding_step_1=1, kspace_encoding_step_2=1)
        encoding.parallelImaging = xsd.parallelImagingType(accelerationFactor=factor)
    encoding.parallelImaging.calibrationMode = xsd.calibrationModeType.SEPARATE
    return _after(scan, replace(reference, _heads=heads))


def with_noise(scan: ArrayScan, noise: npt.NDArray[Any]) -> ArrayScan:
    """Prepend a noise readout with the dwell time of the image.

    Parameters
    ----------
    scan : ArrayScan
    noise : complex array, (coil, sample)

    Returns
    -------
    ArrayScan

    Raises
    ------
    InputError
        The noise has another shape or too many samples.
    """
    coils = int(scan.heads()["active_channels"][0])
    if noise.ndim != 2 or len(noise) != coils or not 0 < noise.shape[1] <= MAX_SAMPLES:
        raise InputError(
            f"{scan.name}: noise has shape {noise.shape}: expected (coil, sample) with {coils} "
            f"coils and at most {MAX_SAMPLES} samples"
        )
    head = np.zeros(1, acquisition_header_dtype)
    for name in ("version", "active_channels", "available_channels", "channel_mask"):
        head[name] = scan.heads()[name][:1]
    head["sample_time_us"] = scan.heads()["sample_time_us"][:1]
    head["number_of_samples"] = noise.shape[1]
    head["flags"] = NOISE
    return _after(scan, ArrayScan(scan.name, scan.header, head, lambda index: noise))


def _after(scan: ArrayScan, first: ArrayScan) -> ArrayScan:
    heads = np.concatenate([first.heads(), scan.heads()])
    heads["scan_counter"] = np.arange(len(heads)) + 1

    def readout(index: int) -> npt.NDArray[Any]:
        if index < len(first):
            return first._readout(index)
        return scan._readout(index - len(first))

    return replace(scan, _heads=heads, _readout=readout)
