"""Reconstruct a scan that comes through a pipe."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Annotated

from gadgets.commands.options import ChainProperties, Config, choice
from scoremri_core.errors import InputError

if TYPE_CHECKING:
    from gadgets.service.pipe import Format, Pipe

logger = logging.getLogger(__name__)

FORMATS = ("auto", "v1", "v2")


def stream(
    config: Config = "score_recon.xml",
    properties: ChainProperties = None,
    format: Annotated[
        str, choice(FORMATS, "--format", help="Version of MRD; auto tells it by the first bytes.")
    ] = "auto",
) -> None:
    """Reconstruct a scan from standard input to standard output.

    An MRD stream of version 1 (as ismrmrd_hdf5_to_stream writes it) or, with scoremri[mrd],
    version 2 comes in, and images of the same version go out. The log goes to standard error. A
    stream of images that has no end is not whole.
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
            raise InputError(f"no image came back from {config}")
        scan.close()
    logger.info("%d images sent", sent)


def _opened(pipe: Pipe, version: str) -> Format:
    from gadgets.service.mrd_v2 import MAGIC, Version2
    from gadgets.service.pipe import INPUT, Version1

    if version == "auto":
        beginning = pipe.peek(2)  # no message of version 1 is shorter
        if not beginning:
            raise InputError(f"{INPUT} is empty: expected an MRD stream")
        version = "v2" if MAGIC.startswith(beginning) else "v1"
    return Version2(pipe) if version == "v2" else Version1(pipe)
