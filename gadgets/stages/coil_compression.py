"""Frames to frames of fewer, virtual coils."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError

if TYPE_CHECKING:
    from scoremri_core.mri.coil_compression import CoilCompression

logger = logging.getLogger(__name__)


def compress_coils(items: Iterable[Any], properties: Properties) -> Iterator[Any]:
    """Replace the coils of each frame by `properties.coils` virtual ones, where it has more.

    Frames that a kept calibration serves share its virtual coils, as they share its coil maps.
    Anything else in the stream passes on.
    """
    for item in items:
        sampled = isinstance(item, Frame) and item.problem is None
        if sampled and 0 < properties.coils < len(item.kspace):
            with item.guarded():
                _compress(item, properties.coils)
        yield item


def _compress(frame: Frame, coils: int) -> None:
    if not np.isfinite(frame.kspace).all():
        raise InputError("k-space holds values that are not finite")
    if frame.noise_covariance is None and not frame.is_volume:
        from scoremri_core.mri.noise import covariance_from_edges

        frame.noise_covariance = covariance_from_edges(frame.kspace, frame.averages)
    found = _compression(frame, coils)
    frame.coil_loss = found.loss
    logger.debug(
        "%s: %.3g %% of the signal lost to %d coils", frame.identity, 100 * found.loss, coils
    )
    frame.kspace = found.compressed(frame.kspace)
    if frame.calibration is not None:
        frame.calibration = found.compressed(frame.calibration)
    if frame.noise_covariance is not None:
        frame.noise_covariance = found.covariance(frame.noise_covariance)


def _compression(frame: Frame, coils: int) -> CoilCompression:
    from scoremri_core.mri.coil_compression import coil_compression

    kept = frame.kept_calibration
    if kept is not None and kept.compression is not None:
        return kept.compression
    source = frame.kspace if frame.calibration is None else frame.calibration
    found = coil_compression(source, coils, frame.noise_covariance)
    if kept is not None:
        kept.compression = found
    return found
