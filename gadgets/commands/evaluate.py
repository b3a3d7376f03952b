"""Compare reconstruction methods on retrospectively undersampled scans."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gadgets.commands.evaluation_table import print_table
from gadgets.commands.options import (
    Accelerations,
    Group,
    Masks,
    Overwrite,
    Prior,
    Samples,
    Seed,
    choice,
)
from gadgets.commands.progress import progress
from scoremri_core.errors import InputError
from scoremri_core.simulation.masks import KINDS, calibration_width, lattice_factors
from scoremri_core.simulation.retrospective import AXES

if TYPE_CHECKING:
    from scoremri_core.studies.evaluate.comparison import Comparison
    from scoremri_core.studies.evaluate.survey import FullScan, ScanScore

EQUISPACED = KINDS[0]


def evaluate(
    source: Annotated[
        Path | None, typer.Argument(metavar="FULL.h5", help="Fully sampled raw data.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Folder of fully sampled raw data, or a file; others are skipped. Repeatable.",
            show_default="only FULL.h5",
        ),
    ] = None,
    acceleration: Accelerations = None,
    mask: Masks = None,
    axis: Annotated[
        str, choice(AXES, "--axis", help="Undersampled axis: lines, columns or both.")
    ] = AXES[0],
    true_acceleration: Annotated[
        bool,
        typer.Option(
            "--true-acceleration/--outside-acceleration", help="Include the calibration lines in R."
        ),
    ] = False,
    calibration: Annotated[
        str,
        typer.Option(
            metavar="N|P%", help="Fully sampled lines around the centre, number or percentage."
        ),
    ] = "24",
    slices: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of slices, evenly spaced around the middle.",
            show_default="all; 1 with --data",
        ),
    ] = None,
    slice_: Annotated[
        list[int] | None,
        typer.Option(
            "--slice",
            metavar="N",
            help="Slice of FULL.h5, from 0. Repeatable.",
            show_default="as --slices",
        ),
    ] = None,
    samples: Samples = 8,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Noise levels of the sampler.",
            show_default="of the sampler",
        ),
    ] = None,
    prior: Prior = "default",
    seed: Seed = 0,
    property_: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            metavar="KEY=VALUE",
            help="Other option of reconstruct(). Repeatable.",
            show_default="none",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            "--json",
            metavar="TABLE.json",
            help="All scores, updated after each row; an interrupted run is resumed.",
            show_default="none",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            help="Figure of the worst case of each scan.",
            show_default="none",
        ),
    ] = None,
    group: Group = "dataset",
    overwrite: Overwrite = False,
) -> None:
    """Compare reconstruction methods on fully sampled scans.

    Zero-filling, CG-SENSE, L1-wavelet and the posterior mean, one row per scan, mask and
    acceleration. The reference is the MVUE of the full data with coil maps from the calibration
    lines or, if the object aliases, the noise-corrected root sum of squares. L1-wavelet uses the
    best of three lambdas, chosen by its PSNR; nothing else depends on the reference.
    """
    from scoremri_core import __version__, load_prior, reconstruct
    from scoremri_core.paths import check_new, replacing
    from scoremri_core.studies.evaluate.comparison import METHODS
    from scoremri_core.studies.evaluate.stored import StoredRows, side_file
    from scoremri_core.studies.evaluate.survey import (
        ACCELERATIONS,
        DEFAULT_MASKS,
        cases,
        evenly_spaced,
        find_files,
        read_scans,
        summary,
        survey,
    )

    paths = ([source] if source else []) + (data or [])
    if not paths:
        raise InputError("expected a fully sampled file, or --data FOLDER")
    if slice_ and (data or slices):
        raise InputError("--slice: not allowed with --data or --slices")
    masks = list(dict.fromkeys(mask or (DEFAULT_MASKS if data else [EQUISPACED])))
    accelerations = acceleration or (None if data else list(ACCELERATIONS))
    options: dict[str, Any] = {"samples": samples, "steps": steps, "prior": prior, "seed": seed}
    options |= _options(property_ or [])
    settings = {
        "masks": masks,
        "axis": axis,
        "true_acceleration": true_acceleration,
        "calibration": calibration,
        "options": dict(options),
    }
    calibration_width(calibration, 100)  # validates
    _check(masks, accelerations, options, true_acceleration or axis == "both")
    if output is not None:
        check_new(side_file(output), True, *paths)
    resumed = output is not None and side_file(output).is_file()
    for path in filter(None, (output, picture)):
        check_new(path, overwrite or (resumed and path == output), *paths)
    if options.get("sampler") != "none" and isinstance(options["prior"], str):
        options["prior"] = load_prior(options["prior"])

    def choose(path: Path, total: int) -> list[int]:
        if slice_:
            if not all(0 <= index < total for index in slice_):
                raise InputError(f"{path}: slice {slice_}: expected 0 to {total - 1}")
            return list(dict.fromkeys(slice_))
        return evenly_spaced(total, slices or (1 if data else total))

    files = find_files(paths)
    with progress("reading", len(files)) as advance:
        scans = read_scans(files, choose, group)
    _check_masks(scans, masks, accelerations, calibration, seed, axis, true_acceleration)
    total = sum(len(scan.slices) * len(cases(scan.coils, masks, accelerations)) for scan in scans)
    if not total:
        raise InputError(f"mask {', '.join(masks)}: single-coil scans need another mask, or -R")
    stored = None
    if output is not None:
        key = {name: value for name, value in settings.items() if name != "masks"} | {
            "slices": {scan.name: list(scan.slices) for scan in scans},
            "prior": getattr(options["prior"], "card", {}).get("sha256"),
            "group": group,
            "version": __version__,
        }
        stored = StoredRows(output, key, files, overwrite)
    rows: list[ScanScore] = []
    worst: dict[str, tuple[ScanScore, Comparison | None]] = {}
    done = 0
    with progress("evaluating", total) as advance:

        def update(scan: Any, kind: str, factor: float, index: int, method: str) -> None:
            nonlocal done
            advance(done, f"{scan.name}, slice {index}, {kind}, R = {factor:g}: {method}")
            done += method == METHODS[-1]

        run = partial(
            survey,
            reconstruct=lambda ksp: reconstruct(ksp, **options),
            calibration=calibration,
            seed=seed,
            before=update,
            axis=axis,
            true=true_acceleration,
        )
        known = stored.rows.copy() if stored else {}
        for row, comparison in run(scans, masks, accelerations, known=known):
            rows.append(row)
            if stored is not None:
                stored.add(row)
            done = sum(len(row.slices) for row in rows)
            if not row.error and (row.scan not in worst or _gain(row) < _gain(worst[row.scan][0])):
                worst[row.scan] = row, comparison
            if output is not None:
                document = settings | {
                    "summary": summary(rows),
                    "rows": [asdict(row) for row in rows],
                }
                with replacing(output) as temporary:
                    temporary.write_text(json.dumps(_finite(document), indent=1) + "\n")
        if picture is not None:  # a resumed row has no images
            for scan in scans:
                least, images = worst.get(scan.name, (None, None))
                if least is not None and images is None:
                    [(_, images)] = run([scan], [least.mask], [least.acceleration])
                    worst[scan.name] = least, images
    if stored is not None:
        stored.remove()
    if all(row.error for row in rows):
        raise InputError(
            f"none of {len(rows)} reconstructions succeeded; the first: {rows[0].error}"
        )
    print_table(rows, summary(rows), f"{calibration} calibration lines, seed {seed}")
    if picture is not None and worst:
        _draw(picture, [(row, images) for row, images in worst.values() if images is not None])


def _options(pairs: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE pairs; values are Python literals or else text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.isidentifier():
            raise InputError(f"-p {pair}: expected KEY=VALUE")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def _check(
    masks: Sequence[str],
    accelerations: Sequence[float] | None,
    options: dict[str, Any],
    true: bool,
) -> None:
    """Raise InputError for settings that are invalid for every scan."""
    from scoremri_core import reconstruct
    from scoremri_core.recon.request import find_device
    from scoremri_core.samplers.registry import REGISTRY
    from scoremri_core.simulation.retrospective import MASKS

    for kind in masks:
        if kind not in MASKS:
            raise InputError(f"mask '{kind}': expected one of {', '.join(MASKS)}")
    for factor in accelerations or []:
        if not 1 <= factor < math.inf:
            raise InputError(f"acceleration {factor:g}: expected at least 1")
        if EQUISPACED in masks and not true:
            lattice_factors(factor, 1)
    sampler = options.get("sampler", "posterior")
    if sampler not in (*REGISTRY, "none"):
        raise InputError(f"sampler {sampler!r}: expected one of {', '.join(REGISTRY)}, none")
    of_the_scan = {"kspace", "mask", "averages", "calibration", "noise_covariance"}
    if given := of_the_scan & set(options):
        raise InputError(f"-p {min(given)}: not allowed, read from the scan")
    known = set(signature(reconstruct).parameters) - {"callback"}
    REGISTRY["posterior" if sampler == "none" else sampler].configured(
        options["steps"], {key: value for key, value in options.items() if key not in known}
    )
    find_device(options.get("device", "auto"))


def _check_masks(
    scans: Sequence[FullScan],
    masks: Sequence[str],
    accelerations: Sequence[float] | None,
    calibration: str,
    seed: int,
    axis: str,
    true: bool,
) -> None:
    """Raise InputError if no scan has a valid mask."""
    from scoremri_core.mri.sampling import measured
    from scoremri_core.simulation.retrospective import kept_samples
    from scoremri_core.studies.evaluate.survey import cases

    reasons = []
    for scan in scans:
        received = measured(next(iter(scan.slices.values())))
        for kind, factor in cases(scan.coils, masks, accelerations):
            try:
                kept_samples(received, kind, factor, calibration, seed, axis, true)
            except InputError as error:
                reasons.append(str(error))
            else:
                return
    if reasons:
        raise InputError(reasons[0])


def _gain(row: ScanScore) -> float:
    return math.inf if row.gain is None else row.gain


def _finite(value: Any) -> Any:
    """Replace infinities and NaN, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(path: Path, worst: Sequence[tuple[ScanScore, Comparison]]) -> None:
    from scoremri_core.paths import replacing
    from scoremri_core.studies.evaluate.pictures import Panels, table_of_images

    panels = []
    for row, comparison in worst:
        ratio = "none" if row.sd_to_error is None else f"{row.sd_to_error:.2f}"
        title = f"{row.scan}, {row.mask}, R = {row.acceleration:g}: "
        images = (comparison.images[method] for method in ("L1-wavelet", "posterior mean"))
        panels.append(
            Panels(
                title + f"gain {row.gain:+.2f} dB, sd/err {ratio}",
                (comparison.reference, *images, comparison.std, comparison.error),
            )
        )
    with replacing(path) as temporary:
        table_of_images(temporary, panels)
