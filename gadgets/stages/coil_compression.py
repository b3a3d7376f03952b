"""Frames to frames of fewer, virtual coils."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from scoremri_core.recon.memo import Memo

logger = logging.getLogger(__name__)


def compress_coils(items: Iterable[Any], properties: Properties, memo: Memo) -> Iterator[Any]:
    """Replace the coils of each frame by `properties.coils` virtual ones, if it has more.

    Anything else in the stream passes.

    Parameters
    ----------
    items : iterable
    properties : Properties
        Of the node.
    memo : Memo
        Keeps what frames with the same calibration share.
    """
    from scoremri_core.recon.compress import compress

    for item in items:
        compressible = isinstance(item, Frame) and item.problem is None
        if compressible and 0 < properties.coils < item.kspace.coils:
            with item.guarded():
                item.kspace, item.coil_loss = compress(item.kspace, properties.coils, memo)
                logger.debug(
                    "%s: %.3g %% of the signal lost to %d coils",
                    item.identity,
                    100 * item.coil_loss,
                    properties.coils,
                )
        yield item
