"""Image files in other formats than ISMRMRD: where they lie, and all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
LONGEST = "x" * 24  # no series has a longer name


def check(output: Path, formats: Sequence[str], overwrite: bool) -> None:
    """Refuse, with InputError, what cannot be written: before the work.

    Parameters
    ----------
    output : file that the names of the others come from
    formats : of h5, which is `output` itself, and FORMATS
    overwrite : whether what is there may be replaced
    """
    check_writable(output)
    if "h5" in formats:
        check_absent(output, overwrite)
    if "nifti" in formats:
        nifti.check_nifti(output)
        stem = stem_of(output)
        check_length(output, output.with_name(f"{stem}_{LONGEST}.nii.gz"))
        for there in sorted(output.parent.glob(f"{stem}_*")):
            if there.name.endswith((*nifti.SUFFIXES, ".json")):
                check_new(there, overwrite)
    if "dicom" in formats:
        dicom.check_dicom(output)
        check_new_folder(dicom_folder(output), overwrite)
        check_length(output, dicom_folder(output) / f"001_{LONGEST}" / "00001.dcm")


def export(
    output: Path, series: Sequence[Series], formats: Sequence[str], header: Any = None
) -> list[Path]:
    """Write series beside `output`, in the formats asked for; say where.

    NIfTI: NAME_mean.nii.gz, NAME_std.nii.gz and so on, each with a .json.  DICOM: the folder
    NAME_dicom with a folder for each series.

    Parameters
    ----------
    header : ISMRMRD header of the scan, for DICOM's patient and study
    """
    with placing(output.parent) as folder:
        if "nifti" in formats:
            for own in series:
                nifti.write_series(folder / f"{stem_of(output)}_{own.name}.nii.gz", own)
        if "dicom" in formats:
            dicom.write_series(folder / dicom_folder(output).name, series, header)
        names = sorted(entry.name for entry in folder.iterdir())
    return [output.parent / name for name in names]


def stem_of(output: Path) -> str:
    """The name without what tells the format."""
    suffixes = (*nifti.SUFFIXES[::-1], ".h5", ".hdf5", ".mrd", ".dcm")
    found = next((suffix for suffix in suffixes if output.name.endswith(suffix)), "")
    return output.name[: len(output.name) - len(found)]


def dicom_folder(output: Path) -> Path:
    """Where the DICOM files lie."""
    return output.with_name(f"{stem_of(output)}_dicom")


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats in a comma list, h5 among them."""
    known = ("h5", *FORMATS)
    formats = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for word in formats:
        if word not in known:
            raise InputError(f"format '{word}': expected a comma list of {', '.join(known)}")
    return formats
