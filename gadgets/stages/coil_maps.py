"""Frames to frames that carry their coil maps and noise."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from scoremri_core.recon.memo import Memo


def add_coil_maps(items: Iterable[Any], properties: Properties, memo: Memo) -> Iterator[Any]:
    """Estimate coil maps and noise of each frame.

    A frame for which this fails carries the reason as its `problem`. Volumes pass: their maps are
    estimated position by position as they are reconstructed. Anything else in the stream passes.

    Parameters
    ----------
    items : iterable
    properties : Properties
        Of the node.
    memo : Memo
        Keeps maps for frames with the same calibration and noise.
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
