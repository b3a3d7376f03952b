"""Coil maps and noise of frames."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from scoremri_core.recon.memo import Memo


def add_coil_maps(items: Iterable[Any], properties: Properties, memo: Memo) -> Iterator[Any]:
    """Estimate coil maps and noise of each frame.

    A failure becomes the `problem` of the frame. Volumes pass: their maps are estimated for
    each 2D problem during the reconstruction.

    Parameters
    ----------
    items : iterable
        Frames and other items of the stream, which pass.
    properties : Properties
        Of the node.
    memo : Memo
        Cache of the maps of frames with the same calibration and noise.

    Yields
    ------
    Frame or item that passes
    """
    from scoremri_core.recon.calibrate import calibrate
    from scoremri_core.recon.request import find_device

    device = str(find_device(properties.device))
    for item in items:
        if isinstance(item, Frame) and item.problem is None and not item.is_volume:
            start = time.perf_counter()
            with item.guarded():
                item.calibrated = calibrate(item.kspace, properties.maps, device, memo)
            item.seconds["coil maps"] = time.perf_counter() - start
        yield item
