"""Frames to frames that carry their coil maps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties


def add_coil_maps(items: Iterable[Any], properties: Properties) -> Iterator[Any]:
    """Estimate the maps of each frame from its calibration lines.

    Frames that a kept calibration serves share its maps.  A frame whose maps cannot be estimated
    carries the reason as its `problem`.  The maps of a volume are estimated part by part as it
    is reconstructed.  Anything else in the stream passes on.
    """
    for item in items:
        if isinstance(item, Frame) and item.problem is None and not item.is_volume:
            start = time.perf_counter()
            with item.guarded():
                item.maps = _maps(item, properties)
            item.seconds["coil maps"] = time.perf_counter() - start
        yield item


def _maps(frame: Frame, properties: Properties) -> np.ndarray:
    if frame.kept_calibration is None:
        return _estimated(frame, properties)
    known = frame.kept_calibration.maps
    shape = frame.kspace.shape
    if shape not in known:
        known[shape] = _estimated(frame, properties)
    return known[shape]


def _estimated(frame: Frame, properties: Properties) -> np.ndarray:
    from scoremri_core.mri.coil_maps import estimate_coil_maps
    from scoremri_core.mri.noise import covariance_from_edges
    from scoremri_core.request import find_device, scaled, unit_of

    covariance = frame.noise_covariance
    if covariance is None:
        covariance = covariance_from_edges(frame.kspace, frame.averages)
    source = frame.kspace if frame.calibration is None else frame.calibration
    unit = unit_of(source)  # in the scanner's own, squares may leave the range of float32
    maps: np.ndarray = estimate_coil_maps(
        scaled(source, unit),
        sets=properties.maps,
        noise_covariance=covariance / unit**2,
        device=str(find_device(properties.device)),
    )
    return maps
