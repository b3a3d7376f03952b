"""Convert raw data or images between formats."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Group, Overwrite
from scoremri_core.errors import InputError
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

RAW = (".h5", ".mrd", ".cfl", ".npy")
IMAGES = (".nii.gz", ".nii", ".dcm")


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="A", help="Raw data in a supported format, or IMAGES.h5.")
    ],
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]",
            help="Raw data: .h5, .cfl or .npy. Images: name, .nii.gz, or .dcm (folder).",
            show_default="images next to A",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="Image formats: nifti,dicom.",
            show_default="from B",
        ),
    ] = None,
    scan: Annotated[
        Path | None,
        typer.Option(
            metavar="SCAN.h5",
            help="Raw data of the images, for patient, study and vendor.",
            show_default="unknown",
        ),
    ] = None,
    group: Group = "dataset",
    overwrite: Overwrite = False,
) -> None:
    """Convert raw data to ISMRMRD, or images to NIfTI or DICOM.

    A is raw data in ISMRMRD, fastMRI HDF5, BART (.cfl), Siemens twix (.dat) or NumPy format with a
    side-car, or images written by replay; the format is detected from the contents.
    """
    from scoremri_core.images.series import is_image_series
    from scoremri_core.paths import check_writable
    from scoremri_core.scans.files import open_hdf5
    from scoremri_core.scans.formats.recognise import recognise

    if output is not None:
        check_writable(output, source)
    has_images = False
    if recognise(source, group) == "ismrmrd":
        with open_hdf5(source) as file:
            inside = file.get(group)
            has_images = (
                hasattr(inside, "values")
                and "data" not in inside
                and any(is_image_series(item) for item in inside.values())
            )
    if has_images:
        _images(source, output, formats, scan, group, overwrite)
        return
    if formats or scan or output is None or str(output).endswith(IMAGES):
        if output is not None and not formats and not scan:
            raise InputError(
                f"{output}: {source} is raw data: expected a name that ends with {', '.join(RAW)}, "
                "or replay it first"
            )
        raise InputError(f"{source}: raw data: expected B, and neither --format nor --scan")
    _raw_data(source, output, group, overwrite)


def _raw_data(source: Path, output: Path, group: str, overwrite: bool) -> None:
    from scoremri_core.paths import check_new, check_writable
    from scoremri_core.scans.files import write_scan
    from scoremri_core.scans.formats.opening import open_any
    from scoremri_core.scans.formats.saving import save_array

    if output.suffix not in RAW:
        raise InputError(f"{output}: expected a name that ends with {', '.join(RAW)}")
    check_new(output, overwrite)
    if output.suffix in (".cfl", ".npy"):  # an array has a side-car, and so may the source
        check_writable(output.with_suffix(".json"), source.with_suffix(".json"))
    with open_any(source, group) as scan:
        written = [output]
        if output.suffix in (".h5", ".mrd"):
            write_scan(output, scan.header_xml, scan, group, waveforms=scan.waveforms())
        else:
            written = save_array(output, scan, overwrite)
        logger.info("%s: %s of %s", written[0], counted(len(scan), "acquisition"), scan.name)


def _images(
    source: Path,
    output: Path | None,
    formats: str | None,
    scan: Path | None,
    group: str,
    overwrite: bool,
) -> None:
    from scoremri_core.images.export import FORMATS, check, export, parse_formats
    from scoremri_core.images.series import read_series
    from scoremri_core.scans.formats.opening import open_any

    if output is None:
        output = source
    wanted = parse_formats(formats) if formats else _as_named(output)
    if not set(wanted) <= set(FORMATS):
        raise InputError(f"format 'h5': {source} is ISMRMRD already: expected nifti or dicom")
    check(output, wanted, overwrite)
    header = None
    if scan is not None:
        with open_any(scan) as opened:
            header = opened.header
    for path in export(output, read_series(source, group, header), wanted, header):
        logger.info("wrote %s", path)


def _as_named(output: Path) -> tuple[str, ...]:
    if output.name.endswith((".nii", ".nii.gz")):
        return ("nifti",)
    if output.suffix == ".dcm":
        return ("dicom",)
    raise InputError(f"{output}: expected a name that ends with .nii.gz or .dcm, or --format")
