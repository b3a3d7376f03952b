"""Export of image series to NIfTI and DICOM, atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.images import dicom, nifti
from scoremri_core.images.series import Series
from scoremri_core.paths import (
    check_absent,
    check_length,
    check_new,
    check_new_folder,
    check_writable,
    placing,
)

FORMATS = ("nifti", "dicom")
LONGEST_NAME = "x" * 24  # of a series


def check(output: Path, formats: Sequence[str], overwrite: bool) -> None:
    """Check that the files can be written.

    Parameters
    ----------
    output : Path
        The .h5, from which the names of the other files derive.
    formats : sequence of str
        "h5" or of FORMATS.
    overwrite : bool
        Whether to replace existing files.

    Raises
    ------
    InputError
        A file exists or cannot be written, or a package is missing.
    """
    check_writable(output)
    if "h5" in formats:
        check_absent(output, overwrite)
    if "nifti" in formats:
        nifti.check_nifti(output)
        stem = stem_of(output)
        check_length(output, output.with_name(f"{stem}_{LONGEST_NAME}.nii.gz"))
        for existing in sorted(output.parent.glob(f"{stem}_*")):
            if existing.name.endswith((*nifti.SUFFIXES, ".json")):
                check_new(existing, overwrite)
    if "dicom" in formats:
        dicom.check_dicom(output)
        check_new_folder(dicom_folder(output), overwrite)
        check_length(output, dicom_folder(output) / f"001_{LONGEST_NAME}" / "00001.dcm")


def export(
    output: Path,
    series: Sequence[Series],
    formats: Sequence[str],
    header: ismrmrdHeader | None = None,
) -> list[Path]:
    """Write series next to `output`.

    NIfTI: NAME_mean.nii.gz, NAME_std.nii.gz, ..., each with a .json. DICOM: the folder NAME_dicom
    with a folder per series.

    Parameters
    ----------
    output : Path
        The .h5, from which the names derive.
    series : sequence of Series
    formats : sequence of str
        Of FORMATS.
    header : ismrmrdHeader, optional
        Of the scan, for patient and study in DICOM.

    Returns
    -------
    list of Path
        Files and folders written.
    """
    with placing(output.parent) as folder:
        if "nifti" in formats:
            for each in series:
                nifti.write_series(folder / f"{stem_of(output)}_{each.name}.nii.gz", each)
        if "dicom" in formats:
            dicom.write_series(folder / dicom_folder(output).name, series, header)
        names = sorted(entry.name for entry in folder.iterdir())
    return [output.parent / name for name in names]


def stem_of(output: Path) -> str:
    """Return the file name without the suffix of its format."""
    suffixes = (*nifti.SUFFIXES[::-1], ".h5", ".hdf5", ".mrd", ".dcm")
    found = next((suffix for suffix in suffixes if output.name.endswith(suffix)), "")
    return output.name[: len(output.name) - len(found)]


def dicom_folder(output: Path) -> Path:
    """Return the folder of the DICOM files."""
    return output.with_name(f"{stem_of(output)}_dicom")


def parse_formats(text: str) -> tuple[str, ...]:
    """Parse a list of formats.

    Parameters
    ----------
    text : str
        Comma-separated, of "h5" and FORMATS.

    Returns
    -------
    tuple of str

    Raises
    ------
    InputError
        Unknown format.
    """
    known = ("h5", *FORMATS)
    formats = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for word in formats:
        if word not in known:
            raise InputError(
                f"format '{word}': expected a comma-separated list of {', '.join(known)}"
            )
    return formats
