"""The targets that a Gadgetron chain names: acquisitions or ReconData in, image series out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from gadgets.protocol.gadgetron.connection import OnLoss, guarded, receive

Frames = Callable[[Iterator[Any], Any, Any], Iterator[Any]]

MOST_APART = 4  # frames that cores of a CPU work on side by side, each with memory of its own


@guarded
def reconstruct_acquisitions(connection: Any, on_loss: OnLoss) -> None:
    """Run as a node that receives raw acquisitions."""
    from gadgets.stages.accumulate import accumulate

    _reconstruct(accumulate, connection, on_loss)


@guarded
def reconstruct_buffers(connection: Any, on_loss: OnLoss) -> None:
    """Run as a node behind BucketToBufferGadget, which sends ReconData."""
    from gadgets.stages.buffers import frames_of_buffers

    _reconstruct(frames_of_buffers, connection, on_loss)


@guarded
def reconstruct(connection: Any, on_loss: OnLoss) -> None:
    """Run as a node that learns from the first data which of the two it receives."""
    from scoremri_core.scans.encoding import encodings

    encodings(connection.header)  # one that is not Cartesian is told before the scan
    _reconstruct(_frames_of_either, connection, on_loss)


# The stages are imported late so that an import that fails reaches the client as a message too.
def _reconstruct(frames: Frames, connection: Any, on_loss: OnLoss) -> None:
    from contextlib import closing

    from gadgetron.external.constants import GADGET_MESSAGE_RECON_DATA

    from gadgets.protocol.gadgetron.documents import check_matrices
    from gadgets.stages.buffers import read_recon_data
    from gadgets.stages.properties import Properties
    from gadgets.stages.watch import Watch
    from gadgets.stream.capture import capture
    from gadgets.stream.outbox import Outbox
    from gadgets.stream.read_ahead import read_ahead
    from gadgets.stream.turns import Turns

    properties = Properties.from_config(connection.config)
    shared = getattr(connection, "shared", None)
    turns = Turns() if shared is None else shared.turns
    if shared is not None:
        properties = shared.applied(properties)
    check_matrices(connection.header)
    connection.add_reader(GADGET_MESSAGE_RECON_DATA, read_recon_data)
    items = capture(receive(connection), connection.raw_bytes.header, properties.capture)

    # Three threads: one reads, one computes (two would fight over the cores of a CPU), and this
    # one sends, so that none of the three waits for another as long as there is room.
    outbox = Outbox()
    given = getattr(connection, "watch", None)
    with closing(given or (Watch() if shared is None else shared.watch())) as watch:
        watch.begins(connection.header)
        stream = watch.arriving(frames(items, connection.header, properties))
        with closing(read_ahead(stream, on_loss=on_loss)) as waiting, closing(iter(outbox)) as sent:
            made = _images(
                turns,
                waiting,
                outbox.wait_for_room,
                properties,
                connection.header,
                watch.finishing,
                watch.sampling,
            )
            outbox.fill(made)
            for image in sent:
                connection.send(image)


def _images(
    turns: Any,
    waiting: Iterable[list[Any]],
    ready: Callable[[], None],
    properties: Any,
    header: Any = None,
    finishing: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    sampling: Callable[[int, Any], None] | None = None,
) -> Generator[Any]:
    from contextlib import closing

    from gadgets.stages.coil_compression import compress_coils
    from gadgets.stages.coil_maps import add_coil_maps
    from gadgets.stages.emit import emit
    from gadgets.stages.frame import Frame
    from gadgets.stages.posterior import posterior
    from gadgets.threads import side_by_side
    from scoremri_core.recon.memo import Memo
    from scoremri_core.recon.request import find_device
    from scoremri_core.threads import threads

    memo = Memo()  # of coil maps and virtual coils whose calibration lines serve several frames

    def made(batches: Iterable[list[Any]]) -> Iterator[Any]:
        mapped = (
            list(add_coil_maps(compress_coils(items, properties, memo), properties, memo))
            for items in batches
        )
        return posterior(mapped, properties, sampling)

    def made_apart(batches: Iterable[list[Any]]) -> Iterator[Any]:
        for items in batches:
            for results in side_by_side(lambda item: list(made([[item]])), items):
                yield from results

    on_cpu = find_device(properties.device).type == "cpu"
    if on_cpu and properties.sampler == "none":  # a sampler takes all cores for a frame
        handed_out = turns.batches(waiting, ready, Frame, most=min(threads(), MOST_APART))
        make = made_apart
    else:
        handed_out, make = turns.batches(waiting, ready, Frame, not on_cpu), made
    with closing(handed_out) as batches:  # so that a turn ends whatever happens in it
        yield from emit(finishing(make(batches)), properties, header)


def _frames_of_either(items: Iterator[Any], header: Any, properties: Any) -> Iterator[Any]:
    import ismrmrd
    from gadgetron.types.recon_data import ReconData

    from gadgets.stages.accumulate import accumulate
    from gadgets.stages.buffers import frames_of_buffers

    def all_from(first: Any) -> Iterable[Any]:
        yield first
        yield from items

    for item in items:
        if isinstance(item, ismrmrd.Acquisition):
            yield from accumulate(all_from(item), header, properties)
        elif isinstance(item, ReconData):
            yield from frames_of_buffers(all_from(item), header, properties)
        else:
            yield item
