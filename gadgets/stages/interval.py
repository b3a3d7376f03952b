"""Intervals with a guarantee, for frames like those of its calibration."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.posterior import prior_of
from gadgets.stages.properties import Properties

logger = logging.getLogger(__name__)


def add_intervals(items: Iterable[Any], properties: Properties) -> Iterator[Any]:
    """Add the interval of the property `guarantee` to each frame, or the reason for having none.

    Parameters
    ----------
    items : iterable
        (Frame, Reconstruction) and other items of the stream, which pass.
    properties : Properties
        Of the node.

    Yields
    ------
    (Frame, Reconstruction) or item that passes

    Raises
    ------
    InputError
        The guarantee cannot be read.
    """
    if not properties.guarantee:
        yield from items
        return
    from scoremri_core.score.guarantee import Guarantee, UnlikeFrameError

    guarantee, prior = Guarantee.load(properties.guarantee), prior_of(properties)
    for item in items:
        if isinstance(item, tuple) and isinstance(item[0], Frame):
            frame, result = item
            try:
                _check_pixels(frame)
                frame.interval = guarantee.interval(result, frame.kspace, prior)[None]
                frame.guarantee = guarantee.description
            except UnlikeFrameError as error:
                frame.guarantee_refused = str(error)
                logger.warning("%s has no guaranteed interval: %s", frame.identity, error)
        yield item


def _check_pixels(frame: Frame) -> None:
    """Raise UnlikeFrameError for an image that is interpolated, not only cropped."""
    from scoremri_core.score.guarantee import UnlikeFrameError

    measured = frame.kspace.mask.shape
    cropped = np.multiply(measured, frame.fov_fraction)
    if np.abs(cropped - frame.recon_shape).max() > 0.5:
        raise UnlikeFrameError(
            f"the image is interpolated from {measured} to {frame.recon_shape} pixels"
        )
