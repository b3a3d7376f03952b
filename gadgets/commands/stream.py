"""Reconstruct a scan from a pipe."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Annotated

from gadgets.commands.options import ChainProperties, Config, choice
from scoremri_core.errors import InputError
from scoremri_core.text import counted

if TYPE_CHECKING:
    from gadgets.service.pipe import Format, Pipe

logger = logging.getLogger(__name__)

FORMATS = ("auto", "v1", "v2")


def stream(
    config: Config = "score_recon.xml",
    properties: ChainProperties = None,
    format: Annotated[
        str, choice(FORMATS, "--format", help="MRD version; auto detects it from the first bytes.")
    ] = "auto",
) -> None:
    """Reconstruct a scan from standard input to standard output.

    Reads an MRD stream of version 1 (as from ismrmrd_hdf5_to_stream) or, with scoremri[mrd],
    version 2, and writes images of the same version. The log goes to standard error. On failure the
    image stream ends without CLOSE.
    """
    from gadgets.commands.replay import pairs
    from gadgets.protocol.gadgetron.chain import Chain
    from gadgets.service.host import run_chain
    from gadgets.service.pipe import standard_pipe
    from gadgets.service.session import WRITERS

    chain = Chain.load(config).with_properties(pairs(properties or []))
    accepted = tuple(WRITERS[name] for name in chain.writers() if name in WRITERS)
    sent = 0
    with standard_pipe() as pipe:
        scan = _opened(pipe, format)
        with contextlib.closing(run_chain(chain, scan.header(), scan.items())) as items:
            for item in items:
                if isinstance(item, accepted):
                    scan.write(item)
                    sent += 1
        if not sent:
            raise InputError(f"{config} returned no image")
        scan.close()
    logger.info("%s sent", counted(sent, "image"))


def _opened(pipe: Pipe, version: str) -> Format:
    from gadgets.service.mrd_v2 import MAGIC, Version2
    from gadgets.service.pipe import INPUT, Version1

    if version == "auto":
        first = pipe.peek(2)  # shortest message of version 1
        if not first:
            raise InputError(f"{INPUT} is empty: expected an MRD stream")
        version = "v2" if MAGIC.startswith(first) else "v1"
    return Version2(pipe) if version == "v2" else Version1(pipe)
