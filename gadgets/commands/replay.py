"""Stream a recorded scan through a chain and save the images."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gadgets.commands.options import ChainProperties, Config, Group, Json, Overwrite
from gadgets.commands.replay_result import ReplayResult, collected_warnings
from gadgets.stages.observer import ScanObserver
from scoremri_core.errors import InputError
from scoremri_core.text import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gadgets.protocol.gadgetron.chain import Chain
    from gadgets.stages.frame import Frame
    from scoremri_core import Progress, Reconstruction

logger = logging.getLogger(__name__)


def replay(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Raw data: ISMRMRD, fastMRI, BART, twix or NumPy; or a folder of such files.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT.h5", help="Image series; of a folder, a folder."
        ),
    ],
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
    json_: Json = False,
    overwrite: Overwrite = False,
) -> int:
    """Stream a recorded scan through a chain into image series.

    OUT.h5 holds GROUP/image_SERIES/{data,header,attributes}, and GROUP/waveforms if the chain
    returns waveforms. NIfTI and DICOM files are written next to it. Each scan of a folder becomes
    OUT/NAME.h5; a scan that fails does not stop the others, but the exit code is 2.
    """
    from gadgets.protocol.gadgetron.chain import Chain, find
    from scoremri_core.images.export import check, parse_formats
    from scoremri_core.paths import check_folder, check_new, check_writable

    selected = parse_formats(formats)
    targets = scans_of_folder(source, output)
    if targets and report is not None:
        raise InputError(f"--report {report}: expected a single scan, {source} is a folder")
    for scan, target in targets.items() or [(source, output)]:
        check_writable(target, scan, new_folder=bool(targets))
    if targets:
        check_folder(output)
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
    if targets:
        output.mkdir(parents=True, exist_ok=True)
    for target in targets.values() or [output]:
        check(target, selected, overwrite)
    run = partial(replay_scan, chain=chain, group=group, address=address, formats=selected)
    if not targets:
        result = run(source, output, report=report)
        if json_:
            typer.echo(json.dumps(result.as_dict(), indent=1))
        return 0
    results = []
    for scan, target in targets.items():
        results.append(_result_or_error(run, scan, target))
        if not json_:
            typer.echo(results[-1].line)
    if json_:
        typer.echo(json.dumps([result.as_dict() for result in results], indent=1))
    return 2 if any(result.error for result in results) else 0


def scans_of_folder(source: Path, output: Path) -> dict[Path, Path]:
    """Map the raw data in a folder to their image files; empty for a file."""
    from scoremri_core.scans.formats.recognise import may_be_raw_data

    if not source.is_dir():
        return {}
    scans = sorted(path for path in source.iterdir() if may_be_raw_data(path))
    stems = [scan.stem for scan in scans]
    return {
        scan: output / f"{scan.stem if stems.count(scan.stem) == 1 else scan.name}.h5"
        for scan in scans
    }


def _result_or_error(
    run: Callable[[Path, Path], ReplayResult], scan: Path, target: Path
) -> ReplayResult:
    try:
        return run(scan, target)
    except Exception as error:
        logger.debug("%s", scan, exc_info=True)
        return ReplayResult(str(scan), error=" ".join(str(error).split()) or type(error).__name__)


def replay_scan(
    source: Path,
    output: Path,
    *,
    chain: Chain | str,
    group: str,
    address: str | None,
    formats: Sequence[str],
    report: Path | None = None,
) -> ReplayResult:
    """Replay one scan.

    Parameters
    ----------
    source, output, report : Path
        See `replay`.
    chain : Chain or str
        A string names a chain of the server.
    group, address : str
        See `replay`.
    formats : sequence of str
        See `parse_formats`.

    Returns
    -------
    ReplayResult
    """
    from gadgets.commands.progress import progress
    from gadgets.protocol.gadgetron.chain import Chain
    from gadgets.service.client import run_remote
    from gadgets.service.host import run_chain
    from scoremri_core.images.export import export
    from scoremri_core.images.series import read_series
    from scoremri_core.scans.formats.opening import open_any
    from scoremri_core.scans.header import parse_header

    start = time.perf_counter()
    result = ReplayResult(str(source))
    with (
        collected_warnings(result.warnings),
        open_any(source, group) as scan,
        image_file(output, keep="h5" in formats) as temporary,
        progress("frames", frames(scan.heads())) as advance,
    ):
        tracker = ReplayProgress(advance, len(scan))
        items = merge_by_time(tracker.sending(scan), scan.waveforms())
        if address is not None:
            received: Iterable[Any] = run_remote(address, chain, scan.header_xml, items)
        else:
            assert isinstance(chain, Chain)
            received = run_chain(chain, scan.header_xml, items, observer=tracker)
        counts = write_images(temporary, group, tracker.receiving(result.receiving(received)))
        if not counts:
            name = chain.name if isinstance(chain, Chain) else chain
            raise InputError(f"{source}: {name} returned no image")
        result.count(counts)
        exported = []
        if others := [name for name in formats if name != "h5"]:
            header = parse_header(scan.header_xml, scan.name)
            exported = export(output, read_series(temporary, group, header), others, header)
    if "h5" in formats:
        result.files.append(str(output))
        for name, count in counts.items():
            logger.info("%s: %s in %s/%s", output, counted(count, "image"), group, name)
    if report is not None:
        from gadgets.commands.report import write_report

        prior = chain.values("prior") if isinstance(chain, Chain) else set()
        write_report(output, report, group, prior=prior.pop() if len(prior) == 1 else None)
        exported.append(report)
    for path in exported:
        logger.info("wrote %s", path)
        result.files.append(str(path))
    result.seconds = round(time.perf_counter() - start, 3)
    return result


def report_outputs(outputs: Iterable[str]) -> str:
    """Append the outputs that a report shows to those of a chain."""
    from gadgets.stages.properties import OUTPUTS, Properties

    requested = [name.strip() for each in outputs for name in each.split(",")]
    shown = [name for name in OUTPUTS if name not in ("phase", "complex_std")]
    return ",".join(dict.fromkeys([*(requested or Properties.outputs), *shown]))


@contextmanager
def image_file(output: Path, keep: bool) -> Iterator[Path]:
    """Yield a temporary path for the images, which replaces `output` if `keep` is set."""
    from scoremri_core.paths import replacing

    if keep:
        with replacing(output) as temporary:
            yield temporary
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
