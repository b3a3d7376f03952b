"""Coil compression of frames."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from scoremri_core.recon.memo import Memo

logger = logging.getLogger(__name__)


def compress_coils(items: Iterable[Any], properties: Properties, memo: Memo) -> Iterator[Any]:
    """Compress each frame to `properties.coils` virtual coils if it has more.

    Parameters
    ----------
    items : iterable
        Frames and other items of the stream, which pass.
    properties : Properties
        Of the node.
    memo : Memo
        Cache of the compression of frames with the same calibration.

    Yields
    ------
    Frame or item that passes
    """
    from scoremri_core.recon.compress import compress

    for item in items:
        compressible = isinstance(item, Frame) and item.problem is None
        if compressible and 0 < properties.coils < item.kspace.coils:
            with item.guarded():
                item.kspace, item.coil_loss = compress(item.kspace, properties.coils, memo)
                logger.debug(
                    "%s: compressed to %d coils, %.3g %% of the signal energy lost",
                    item.identity,
                    properties.coils,
                    100 * item.coil_loss,
                )
        yield item
