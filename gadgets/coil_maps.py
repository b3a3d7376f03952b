"""Frames to frames that carry their coil maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.frame import Frame
from gadgets.properties import Properties
from scoremri_core.errors import InputError


def add_coil_maps(items: Iterable[Any], properties: Properties) -> Iterator[Any]:
    """Estimate the maps of each frame from its calibration lines.

    A frame whose maps cannot be estimated carries the reason as its `problem`.  Anything else in
    the stream passes on.
    """
    for item in items:
        if isinstance(item, Frame) and item.problem is None:
            _estimate(item, properties)
        yield item


def _estimate(frame: Frame, properties: Properties) -> None:
    from scoremri_core.arguments import find_device
    from scoremri_core.coil_maps import estimate_coil_maps
    from scoremri_core.noise import covariance_from_edges

    try:
        covariance = frame.noise_covariance
        if covariance is None:
            covariance = covariance_from_edges(frame.kspace)
        frame.maps = estimate_coil_maps(
            frame.kspace if frame.calibration is None else frame.calibration,
            sets=properties.maps,
            noise_covariance=covariance,
            device=str(find_device(properties.device)),
        )
    except InputError as error:
        frame.problem = str(error)
