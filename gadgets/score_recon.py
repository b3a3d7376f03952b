"""Targets of a Gadgetron chain: acquisitions or ReconData in, image series out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from gadgets.protocol.gadgetron.connection import OnLoss, guarded, receive
from gadgets.stages.observer import ScanObserver

if TYPE_CHECKING:
    from ismrmrd.xsd import ismrmrdHeader

    from gadgets.stages.properties import Properties
    from gadgets.stream.turns import Turns

FrameSource = Callable[[Iterator[Any], Any, Any], Iterator[Any]]

MAX_PARALLEL_FRAMES = 4  # reconstructed at once on the cores of a CPU; bounds the memory


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
    """Run as a node that receives either, which the first item decides."""
    from scoremri_core.scans.encoding import encodings

    encodings(connection.header)  # raises for a non-Cartesian scan before the first readout
    _reconstruct(_frames_of_either, connection, on_loss)


# The stages are imported late so that an import that fails reaches the client as a message too.
def _reconstruct(source: FrameSource, connection: Any, on_loss: OnLoss) -> None:
    from contextlib import closing

    from gadgetron.external.constants import GADGET_MESSAGE_RECON_DATA

    from gadgets.protocol.gadgetron.documents import check_matrices
    from gadgets.stages.buffers import read_recon_data
    from gadgets.stages.properties import Properties
    from gadgets.stream.capture import capture
    from gadgets.stream.outbox import Outbox
    from gadgets.stream.read_ahead import read_ahead

    properties = Properties.from_config(connection.config)
    header = connection.header
    shared = getattr(connection, "shared", None)
    if shared is not None:
        properties = shared.applied(properties)
    turns = None if shared is None else shared.turns
    check_matrices(header)
    connection.add_reader(GADGET_MESSAGE_RECON_DATA, read_recon_data)
    items = capture(receive(connection), connection.raw_bytes.header, properties.capture)
    new_observer = ScanObserver if shared is None else shared.observer
    with closing(getattr(connection, "observer", None) or new_observer()) as observer:
        observer.scan_started(header)
        frames = _report_received(source(items, header, properties), observer)
        # One thread reads, one computes (two would compete for the cores of a CPU) and this one
        # sends, so that none waits for another while there is room.
        outbox = Outbox()
        with closing(read_ahead(frames, on_loss=on_loss)) as waiting, closing(iter(outbox)) as sent:
            ready = outbox.wait_for_room
            outbox.fill(images(waiting, properties, header, turns, ready, observer))
            for image in sent:
                connection.send(image)


def images(
    waiting: Iterable[list[Any]],
    properties: Properties,
    header: ismrmrdHeader | None = None,
    turns: Turns | None = None,
    ready: Callable[[], None] = lambda: None,
    observer: ScanObserver | None = None,
) -> Generator[Any]:
    """Reconstruct the frames of a stream into images.

    Parameters
    ----------
    waiting : iterable of list
        Frames that wait together and other items of the stream, which pass.
    properties : Properties
        Of the node.
    header : ismrmrdHeader, optional
        Of the scan.
    turns : Turns, optional
        Queue for a device that several scans share. Default: a queue for this scan only.
    ready : callable, optional
        Blocks until results of a further frame can be taken.
    observer : ScanObserver, optional
        Observes the reconstruction.

    Yields
    ------
    ismrmrd.Image or item that passes
    """
    from contextlib import closing

    from gadgets.stages.coil_compression import compress_coils
    from gadgets.stages.coil_maps import add_coil_maps
    from gadgets.stages.emit import emit
    from gadgets.stages.frame import Frame
    from gadgets.stages.interval import add_intervals
    from gadgets.stages.posterior import posterior
    from gadgets.stream.turns import Turns
    from gadgets.threads import parallel_map
    from scoremri_core.recon.memo import Memo
    from scoremri_core.recon.request import find_device
    from scoremri_core.threads import threads

    memo = Memo()  # coil maps and virtual coils of frames with the same calibration lines
    turns, observer = turns or Turns(), observer or ScanObserver()
    level_sampled = observer.level_sampled

    def in_order(batches: Iterable[list[Any]]) -> Iterator[Any]:
        calibrated = (
            list(add_coil_maps(compress_coils(items, properties, memo), properties, memo))
            for items in batches
        )
        return posterior(calibrated, properties, level_sampled)

    def in_parallel(batches: Iterable[list[Any]]) -> Iterator[Any]:
        for items in batches:
            for results in parallel_map(lambda item: list(in_order([[item]])), items):
                yield from results

    on_cpu = find_device(properties.device).type == "cpu"
    if on_cpu and properties.sampler == "none":  # a sampler takes all cores for a frame
        most = min(threads(), MAX_PARALLEL_FRAMES)
        granted, run = turns.batches(waiting, ready, Frame, most=most), in_parallel
    else:
        granted, run = turns.batches(waiting, ready, Frame, not on_cpu), in_order
    with closing(granted) as batches:  # ends the turn even where the reconstruction fails
        results = add_intervals(_report_reconstructed(run(batches), observer), properties)
        yield from emit(results, properties, header)


def _frames_of_either(
    items: Iterator[Any], header: ismrmrdHeader, properties: Properties
) -> Iterator[Any]:
    import ismrmrd
    from gadgetron.types.recon_data import ReconData

    from gadgets.stages.accumulate import accumulate
    from gadgets.stages.buffers import frames_of_buffers

    for item in items:
        if isinstance(item, ismrmrd.Acquisition):
            yield from accumulate(chain([item], items), header, properties)
        elif isinstance(item, ReconData):
            yield from frames_of_buffers(chain([item], items), header, properties)
        else:
            yield item


def _report_received(items: Iterable[Any], observer: ScanObserver) -> Iterator[Any]:
    from gadgets.stages.frame import Frame

    for item in items:
        if isinstance(item, Frame):
            observer.frame_received()
        yield item


def _report_reconstructed(items: Iterable[Any], observer: ScanObserver) -> Iterator[Any]:
    from gadgets.stages.frame import Frame

    for item in items:
        if isinstance(item, tuple) and isinstance(item[0], Frame):
            observer.frame_reconstructed(*item)
        yield item
