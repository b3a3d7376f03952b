"""Stream a recorded scan through a chain and keep the images that come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gadgets.commands.options import ChainProperties, Config, Group, Overwrite
from gadgets.stages.observer import ScanObserver
from scoremri_core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gadgets.stages.frame import Frame
    from scoremri_core import Progress, Reconstruction

logger = logging.getLogger(__name__)


def replay(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Raw data: see Files in the documentation.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5", help="Images.")],
    config: Config = "score_recon.xml",
    properties: ChainProperties = None,
    group: Group = "dataset",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Use this Gadgetron server.", show_default="this process"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE.html",
            help="Make a page of the images, too; zero-filled, classical and samples among them.",
            show_default="none",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="Of the images, as h5,nifti,dicom: ISMRMRD, OUT_mean.nii.gz, OUT_dicom/.",
        ),
    ] = "h5",
    overwrite: Overwrite = False,
) -> None:
    """Stream a recorded scan through a chain into image series.

    OUT.h5 gets GROUP/image_SERIES/{data,header,attributes}.
    Waveforms of the scan are sent too, and those that come back are kept in GROUP/waveforms. NIfTI
    and DICOM files lie beside it.
    """
    from gadgets.commands.progress import progress
    from gadgets.protocol.gadgetron.chain import Chain, find
    from gadgets.service.client import run_remote
    from gadgets.service.host import run_chain
    from scoremri_core.images.export import check, export, parse_formats
    from scoremri_core.images.series import read_series
    from scoremri_core.paths import check_new, check_writable
    from scoremri_core.scans.formats.opening import open_any
    from scoremri_core.scans.header import parse_header

    wanted = parse_formats(formats)
    check_writable(output, source)
    check(output, wanted, overwrite)
    if report is not None:
        check_new(report, overwrite, source, output)
        if "h5" not in wanted:
            raise InputError(f"--format {formats}: expected h5 among them, for --report")
    values = pairs(properties or [])
    chain: Chain | str = config
    if address is None or find(config) is not None:
        chain = Chain.load(config)
        if report is not None and "outputs" not in values:
            values["outputs"] = with_all_to_show(chain.values("outputs"))
        chain = chain.with_properties(values)
    elif values:
        raise InputError(f"the chain '{config}' is the server's own: -p needs a chain file")
    with (
        open_any(source, group) as scan,
        written(output, keep="h5" in wanted) as partial,
        progress("frames", frames(scan.heads())) as advance,
    ):
        course = ReplayProgress(advance, len(scan))
        items = in_time(course.sending(scan), scan.waveforms())
        if address is not None:
            received: Iterable[Any] = run_remote(address, chain, scan.header_xml, items)
        else:
            assert isinstance(chain, Chain)
            received = run_chain(chain, scan.header_xml, items, observer=course)
        counts = write_images(partial, group, course.receiving(received))
        if not counts:
            raise InputError(f"{source}: no image came back from {config}")
        others = [name for name in wanted if name != "h5"]
        made = []
        if others:
            header = parse_header(scan.header_xml, scan.name)
            made = export(output, read_series(partial, group, header), others, header)
    for name, count in counts.items():
        if "h5" in wanted:
            logger.info("%s: %d images in %s/%s", output, count, group, name)
    for path in made:
        logger.info("%s: written", path)
    if report is not None:
        from gadgets.commands.report import write_report

        prior = chain.values("prior") if isinstance(chain, Chain) else set()
        write_report(output, report, group, prior=prior.pop() if len(prior) == 1 else None)
        logger.info("%s drawn", report)


def with_all_to_show(outputs: Iterable[str]) -> str:
    """The outputs of a chain, and behind them those that a page shows besides."""
    from gadgets.stages.properties import OUTPUTS, Properties

    asked = [name.strip() for each in outputs for name in each.split(",")]
    shown = [name for name in OUTPUTS if name not in ("phase", "complex_std")]
    return ",".join(dict.fromkeys([*(asked or Properties.outputs), *shown]))


@contextmanager
def written(output: Path, keep: bool) -> Iterator[Path]:
    """Where the images are written first; they take the place of `output` if they are kept."""
    from scoremri_core.paths import replacing

    if keep:
        with replacing(output) as partial:
            yield partial
    else:
        with TemporaryDirectory(prefix=".scoremri", dir=output.parent) as folder:
            yield Path(folder) / output.name


@dataclass
class ReplayProgress(ScanObserver):
    """Progress of a replay, updated by the threads that send, compute and receive.

    Attributes
    ----------
    advance : callable
        Reports the frames done and a note; see `progress`.
    readouts : int
        Readouts of the scan.
    sent : int
        Readouts sent.
    frames : int
        Frames with an image received.
    made : int
        Frames reconstructed in this process.
    part : float
        Progress of the batch that is being sampled, in frames.
    level : str
        Its noise level.
    """

    advance: Callable[[float, str], None]
    readouts: int
    sent: int = 0
    frames: int = 0
    made: int = 0
    part: float = 0.0
    level: str = ""

    def sending(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the readouts and count them."""
        for item in items:
            yield item
            self.sent += 1
            self._show()

    def receiving(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items received and count the frames by the images of the first series."""
        first = None
        for item in items:
            series = getattr(item, "image_series_index", None)
            first = series if first is None else first
            if series is not None and series == first:
                self.frames += 1
                self._show()
            yield item

    def level_sampled(self, frames: int, progress: Progress) -> None:
        """Report the noise level of a batch; a remote server does not."""
        self.part = frames * progress.done
        self.level = f"noise level {progress.level} of {progress.levels}"
        self._show()

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        """Count a frame whose image is about to be received."""
        self.made += 1
        self.part, self.level = max(self.part - 1, 0.0), ""

    def _show(self) -> None:
        waiting = self.sent < self.readouts
        sent = f"{self.sent} of {self.readouts} readouts sent" if waiting else ""
        done = max(self.frames, self.made + self.part)
        self.advance(done, ", ".join(filter(None, (sent, self.level))))


def frames(heads: NDArray[Any]) -> int:
    """How many frames the readouts of a scan make, by their counters."""
    import numpy as np

    from scoremri_core.scans.flags import CALIBRATION, COUNTERS, imaging_lines

    imaging = imaging_lines(heads) & (heads["flags"] & np.uint64(CALIBRATION) == 0)
    counters = heads["idx"][imaging][list(COUNTERS)]
    return len(np.unique(counters))


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
    from ismrmrd.file import Waveforms

    from scoremri_core.scans.files import Table, new_hdf5, reserve

    counts: dict[str, int] = {}
    shapes: dict[str, tuple[Any, ...]] = {}
    with new_hdf5(path, locking=None) as file, ismrmrd.Dataset(str(path), group, mode="r+") as kept:
        waveforms = Table(file.require_group(group), "waveforms", Waveforms)
        for image in items:
            if isinstance(image, ismrmrd.Waveform):
                waveforms.add(image)
                continue
            if not isinstance(image, ismrmrd.Image):
                logger.debug("a %s came back and is not kept", type(image).__name__)
                continue
            name = f"image_{image.image_series_index}"
            kind = (image.data.shape, image.data.dtype)
            if shapes.setdefault(name, kind) != kind:
                name += "_" + "x".join(map(str, (*image.data.shape, image.data.dtype)))
            reserve(file, image.data.nbytes + len(image.attribute_string))
            kept.append_image(name, image)
            counts[name] = counts.get(name, 0) + 1
            logger.debug("image %d of series %d", counts[name], image.image_series_index)
        waveforms.write()
    return counts


def pairs(properties: list[str]) -> dict[str, str]:
    """Properties given as KEY=VALUE."""
    values = {}
    for text in properties:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise InputError(f"-p '{text}': expected KEY=VALUE")
        values[name.strip()] = value
    return values
