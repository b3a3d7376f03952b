"""The targets that a Gadgetron chain names: acquisitions or ReconData in, image series out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gadgets.connection import OnLoss, guarded, receive


@guarded
def reconstruct_acquisitions(connection: Any, on_loss: OnLoss) -> None:
    """Run as a node that receives raw acquisitions."""
    from gadgets.accumulate import accumulate
    from gadgets.capture import capture
    from gadgets.properties import Properties

    properties = Properties.from_config(connection.config)
    items = capture(receive(connection), connection.raw_bytes.header, properties.capture)
    _reconstruct(accumulate(items, connection.header, properties), connection, properties, on_loss)


@guarded
def reconstruct_buffers(connection: Any, on_loss: OnLoss) -> None:
    """Run as a node behind BucketToBufferGadget, which sends ReconData."""
    from gadgetron.external.constants import GADGET_MESSAGE_RECON_DATA

    from gadgets.buffers import frames_of_buffers, read_recon_data
    from gadgets.properties import Properties

    properties = Properties.from_config(connection.config)
    connection.add_reader(GADGET_MESSAGE_RECON_DATA, read_recon_data)
    frames = frames_of_buffers(receive(connection), connection.header, properties)
    _reconstruct(frames, connection, properties, on_loss)


# The stages are imported late so that an import that fails reaches the client as a message too.
def _reconstruct(frames: Iterable[Any], connection: Any, properties: Any, on_loss: OnLoss) -> None:
    from gadgets.coil_maps import add_coil_maps
    from gadgets.emit import emit
    from gadgets.posterior import posterior
    from gadgets.read_ahead import read_ahead

    # One thread computes, since two would fight over the cores of a CPU.
    waiting = read_ahead(frames, on_loss=on_loss)
    batches = (list(add_coil_maps(items, properties)) for items in waiting)
    for item in emit(posterior(batches, properties), properties):
        connection.send(item)
