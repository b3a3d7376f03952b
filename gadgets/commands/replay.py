"""Stream a recorded scan through a chain and save the images."""

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

REPORTED = ("mean", "std", "samples", "zero_filled", "classical")  # outputs that a report shows


def replay(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Raw data: ISMRMRD, fastMRI, BART, twix or NumPy.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5", help="Image series.")],
    config: Config = "score_recon.xml",
    properties: ChainProperties = None,
    group: Group = "dataset",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Gadgetron server to use.", show_default="this process"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE.html",
            help="Write an HTML report; requests samples, zero-filled and classical images.",
            show_default="none",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="Image formats: h5 (ISMRMRD), nifti (OUT_mean.nii.gz, ...), dicom (OUT_dicom/).",
        ),
    ] = "h5",
    overwrite: Overwrite = False,
) -> None:
    """Stream a recorded scan through a chain into image series.

    OUT.h5 holds GROUP/image_SERIES/{data,header,attributes}, and GROUP/waveforms if the chain
    returns waveforms. NIfTI and DICOM files are written next to it.
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

    selected = parse_formats(formats)
    check_writable(output, source)
    check(output, selected, overwrite)
    if report is not None:
        check_new(report, overwrite, source, output)
        if "h5" not in selected:
            raise InputError(f"--format {formats}: --report needs h5")
    values = pairs(properties or [])
    chain: Chain | str = config
    if address is None or find(config) is not None:
        chain = Chain.load(config)
        if report is not None and "outputs" not in values:
            values["outputs"] = report_outputs(chain.values("outputs"))
        chain = chain.with_properties(values)
    elif values:
        raise InputError(f"-p needs a chain file: no file '{config}', which the server may know")
    with (
        open_any(source, group) as scan,
        image_file(output, keep="h5" in selected) as partial,
        progress("frames", frames(scan.heads())) as advance,
    ):
        tracker = ReplayProgress(advance, len(scan))
        items = merge_by_time(tracker.sending(scan), scan.waveforms())
        if address is not None:
            received: Iterable[Any] = run_remote(address, chain, scan.header_xml, items)
        else:
            assert isinstance(chain, Chain)
            received = run_chain(chain, scan.header_xml, items, observer=tracker)
        counts = write_images(partial, group, tracker.receiving(received))
        if not counts:
            raise InputError(f"{source}: {config} returned no image")
        others = [name for name in selected if name != "h5"]
        exported = []
        if others:
            header = parse_header(scan.header_xml, scan.name)
            exported = export(output, read_series(partial, group, header), others, header)
    for name, count in counts.items():
        if "h5" in selected:
            logger.info("%s: %d images in %s/%s", output, count, group, name)
    for path in exported:
        logger.info("wrote %s", path)
    if report is not None:
        from gadgets.commands.report import write_report

        prior = chain.values("prior") if isinstance(chain, Chain) else set()
        write_report(output, report, group, prior=prior.pop() if len(prior) == 1 else None)
        logger.info("wrote %s", report)


def report_outputs(outputs: Iterable[str]) -> str:
    """Append the outputs that a report shows to those of a chain."""
    from gadgets.stages.properties import Properties

    requested = [name.strip() for each in outputs for name in each.split(",")]
    return ",".join(dict.fromkeys([*(requested or Properties.outputs), *REPORTED]))


@contextmanager
def image_file(output: Path, keep: bool) -> Iterator[Path]:
    """Yield a temporary path for the images, which replaces `output` if `keep` is set."""
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
        See `progress`; in frames.
    readouts, sent : int
        Readouts of the scan, and those sent so far.
    frames : int
        Frames of which an image was received.
    computed : int
        Frames that were computed in this process.
    part : float
        Fractional number of frames completed in the batch that is being sampled.
    level : str
        Noise level of that batch.
    """

    advance: Callable[[float, str], None]
    readouts: int
    sent: int = 0
    frames: int = 0
    computed: int = 0
    part: float = 0.0
    level: str = ""

    def sending(self, items: Iterable[Any]) -> Iterator[Any]:
        """Count the readouts."""
        for item in items:
            yield item
            self.sent += 1
            self._show()

    def receiving(self, items: Iterable[Any]) -> Iterator[Any]:
        """Count the frames received, by the images of the first series."""
        first = None
        for item in items:
            series = getattr(item, "image_series_index", None)
            first = series if first is None else first
            if series is not None and series == first:
                self.frames += 1
                self._show()
            yield item

    def level_sampled(self, frames: int, progress: Progress) -> None:
        """Take the progress of a batch of frames (only of the embedded host)."""
        self.part = frames * progress.done
        self.level = f"noise level {progress.level} of {progress.levels}"
        self._show()

    def frame_reconstructed(self, frame: Frame, result: Reconstruction) -> None:
        """Count a computed frame."""
        self.computed += 1
        self.part, self.level = max(self.part - 1, 0.0), ""

    def _show(self) -> None:
        waiting = self.sent < self.readouts
        sent = f"{self.sent} of {self.readouts} readouts sent" if waiting else ""
        done = max(self.frames, self.computed + self.part)
        self.advance(done, ", ".join(filter(None, (sent, self.level))))


def frames(heads: NDArray[Any]) -> int:
    """Count the frames of a scan by the counters of its readouts."""
    import numpy as np

    from scoremri_core.scans.flags import CALIBRATION, COUNTERS, imaging_lines

    imaging = imaging_lines(heads) & (heads["flags"] & np.uint64(CALIBRATION) == 0)
    counters = heads["idx"][imaging][list(COUNTERS)]
    return len(np.unique(counters))


def merge_by_time(acquisitions: Iterable[Any], waveforms: Iterable[Any]) -> Iterator[Any]:
    """Yield acquisitions in order, each waveform before the first later acquisition."""
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
    """Write the images and waveforms of a stream to an ISMRMRD file.

    A series holds images of one shape and type; others get a name that ends with theirs.

    Returns
    -------
    dict of str to int
        Number of images of each series.
    """
    import ismrmrd
    from ismrmrd.file import Waveforms

    from scoremri_core.scans.files import Table, new_hdf5, reserve

    counts: dict[str, int] = {}
    shapes: dict[str, tuple[Any, ...]] = {}
    with (
        new_hdf5(path, locking=None) as file,
        ismrmrd.Dataset(str(path), group, mode="r+") as dataset,
    ):
        waveforms = Table(file.require_group(group), "waveforms", Waveforms)
        for image in items:
            if isinstance(image, ismrmrd.Waveform):
                waveforms.add(image)
                continue
            if not isinstance(image, ismrmrd.Image):
                logger.debug("received a %s, not saved", type(image).__name__)
                continue
            name = f"image_{image.image_series_index}"
            kind = (image.data.shape, image.data.dtype)
            if shapes.setdefault(name, kind) != kind:
                name += "_" + "x".join(map(str, (*image.data.shape, image.data.dtype)))
            reserve(file, image.data.nbytes + len(image.attribute_string))
            dataset.append_image(name, image)
            counts[name] = counts.get(name, 0) + 1
            logger.debug("image %d of series %d", counts[name], image.image_series_index)
        waveforms.write()
    return counts


def pairs(properties: list[str]) -> dict[str, str]:
    """Parse properties given as KEY=VALUE."""
    values = {}
    for text in properties:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise InputError(f"-p '{text}': expected KEY=VALUE")
        values[name.strip()] = value
    return values
