"""Stream a recorded scan through a chain and keep the images that come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)


def replay(
    source: Annotated[Path, typer.Argument(metavar="IN.h5", help="Recorded ISMRMRD scan.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5", help="Images.")],
    config: Annotated[
        str, typer.Option("-c", "--config", metavar="NAME_OR_PATH.xml", help="Chain to run.")
    ] = "score_recon.xml",
    properties: Annotated[
        list[str] | None,
        typer.Option("-p", "--property", metavar="KEY=VALUE", help="Property of the chain."),
    ] = None,
    group: Annotated[str, typer.Option(help="Group of the scan, and of the images.")] = "dataset",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Use this Gadgetron server.")
    ] = None,
) -> None:
    """Stream a scan through a chain; OUT.h5 gets GROUP/image_SERIES/{data,header,attributes}.

    Waveforms of the scan are sent too, and those that come back are kept in GROUP/waveforms.
    """
    from gadgets.commands.progress import progress
    from gadgets.protocol.chain import Chain, find
    from gadgets.service.client import run_remote
    from gadgets.service.host import run_chain
    from scoremri_core.scans.files import open_scan, replacing

    if output.exists() and output.samefile(source):
        raise InputError(f"{output}: the images would replace the scan itself")
    values = _pairs(properties or [])
    chain: Chain | str = config
    if address is None or find(config) is not None:
        chain = Chain.load(config).with_properties(values)
    elif values:
        raise InputError(f"the chain '{config}' is the server's own: -p needs a chain file")
    with (
        open_scan(source, group) as scan,
        replacing(output) as partial,
        progress("readouts sent", len(scan)) as report,
    ):
        items = in_time(_counted(scan, report), scan.waveforms())
        if address is not None:
            received: Iterable[Any] = run_remote(address, chain, scan.header_xml, items)
        else:
            assert isinstance(chain, Chain)
            received = run_chain(chain, scan.header_xml, items)
        counts = write_images(partial, group, received)
        if not counts:
            raise InputError(f"{source}: no image came back from {config}")
    for name, count in counts.items():
        logger.info("%s: %d images in %s/%s", output, count, group, name)


def in_time(acquisitions: Iterable[Any], waveforms: Iterable[Any]) -> Iterator[Any]:
    """Acquisitions in their order, each waveform before the first that was made after it."""
    recorded = iter(waveforms)
    waveform = next(recorded, None)
    for acquisition in acquisitions:
        while waveform is not None and waveform.time_stamp < acquisition.acquisition_time_stamp:
            yield waveform
            waveform = next(recorded, None)
        yield acquisition
    if waveform is not None:
        yield waveform
        yield from recorded


def write_images(path: Path, group: str, items: Iterable[Any]) -> dict[str, int]:
    """Write the images of a stream to an ISMRMRD file, and say how many each series has.

    A series holds images of one size; one of another size gets a name that ends with it.  The
    waveforms of the stream are written beside them.
    """
    import ismrmrd

    waveforms = []
    counts: dict[str, int] = {}
    shapes: dict[str, tuple[Any, ...]] = {}
    with ismrmrd.Dataset(str(path), group, mode="w") as dataset:
        for image in items:
            if isinstance(image, ismrmrd.Waveform):
                waveforms.append(image)
                continue
            if not isinstance(image, ismrmrd.Image):
                logger.debug("a %s came back and is not kept", type(image).__name__)
                continue
            name = f"image_{image.image_series_index}"
            kind = (image.data.shape, image.data.dtype)
            if shapes.setdefault(name, kind) != kind:
                name += "_" + "x".join(map(str, (*image.data.shape, image.data.dtype)))
            dataset.append_image(name, image)
            counts[name] = counts.get(name, 0) + 1
            logger.debug("image %d of series %d", counts[name], image.image_series_index)
    if waveforms:
        _write_waveforms(path, group, waveforms)
    return counts


def _write_waveforms(path: Path, group: str, waveforms: Iterable[Any]) -> None:
    import h5py
    from ismrmrd.file import Waveforms

    from scoremri_core.scans.files import Table

    with h5py.File(path, "a") as file:
        table = Table(file.require_group(group), "waveforms", Waveforms)
        for waveform in waveforms:
            table.add(waveform)
        table.write()


def _counted(items: Iterable[Any], report: Callable[[int, str], None]) -> Iterator[Any]:
    for number, item in enumerate(items, start=1):
        yield item
        report(number, "")


def _pairs(properties: list[str]) -> dict[str, str]:
    values = {}
    for text in properties:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise InputError(f"-p '{text}': expected KEY=VALUE")
        values[name.strip()] = value
    return values
