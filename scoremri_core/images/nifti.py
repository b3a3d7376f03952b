"""Images as NIfTI, with nibabel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.images import RESEARCH_ONLY
from scoremri_core.images.series import Picture, Series
from scoremri_core.paths import PathLike

RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER = 1  # code of coordinates of the scanner
SUFFIXES = (".nii", ".nii.gz")


def write_nifti(path: PathLike, array: npt.NDArray[Any], affine: Any, description: str) -> None:
    """Write an array (x, y, z) or (x, y, z, volume) to `path`, which ends with .nii or .nii.gz.

    Parameters
    ----------
    affine : (4, 4), from indices to mm in RAS
    description : its first 79 characters are kept

    Raises
    ------
    InputError
        Where nibabel is missing, or the name ends with something else.
    """
    if not str(path).endswith(SUFFIXES):
        raise InputError(f"{path}: expected a name that ends with .nii or .nii.gz")
    nibabel = _nibabel(path)
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, SCANNER)
    image.set_sform(affine, SCANNER)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    nibabel.save(image, path)


def check_nifti(path: PathLike) -> None:
    """Refuse, with InputError, where nibabel is missing: before the work."""
    _nibabel(path)


def write_series(path: Path, series: Series) -> None:
    """Write a series, and a side-car .json of what is known of it."""
    array, affine = stacked(series)
    short = f"{series.description}; {RESEARCH_ONLY}"
    write_nifti(path, array, RAS_OF_LPS @ affine, short)
    told = {
        "SeriesDescription": series.description,
        "SeriesNumber": series.index,
        "Units": series.units,
        "ImageComments": f"{RESEARCH_ONLY} {series.attribute('ImageComment')}".strip(),
    }
    attributes = series.pictures[0].attributes
    told |= {name: own for name, own in attributes.items() if name not in told}
    sidecar(path).write_text(json.dumps(told, indent=1, default=str) + "\n")


def sidecar(path: Path) -> Path:
    """The .json beside a .nii or .nii.gz."""
    suffix = next(suffix for suffix in SUFFIXES[::-1] if path.name.endswith(suffix))
    return path.with_name(path.name[: -len(suffix)] + ".json")


def stacked(series: Series) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The series as one array (x, y, z), or (x, y, z, volume), and its affine in LPS.

    Raises
    ------
    InputError
        Where its volumes differ in their slices, or these are not parallel and evenly spaced.
    """
    volumes, affines = zip(*(_volume(series, own) for own in series.volumes), strict=True)
    alike = all(
        one.shape == volumes[0].shape and np.allclose(affine, affines[0], atol=0.01)
        for one, affine in zip(volumes, affines, strict=True)
    )
    if not alike:
        raise InputError(
            f"series {series.index} ({series.name}): its volumes do not lie on each other, as "
            "NIfTI needs; use DICOM"
        )
    array = np.stack(volumes, axis=-1) if len(volumes) > 1 else volumes[0]
    return array, affines[0]


def _volume(
    series: Series, pictures: Sequence[Picture]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    affine = pictures[0].affine.copy()
    if len(pictures) > 1:
        corners = np.array([own.affine[:3, 3] for own in pictures])
        steps = np.diff(corners, axis=0)
        even = np.allclose(steps, steps.mean(axis=0), atol=0.01)
        parallel = all(
            np.allclose(own.affine[:3, :3], affine[:3, :3], atol=1e-3) for own in pictures
        )
        if not (
            even and parallel and np.linalg.norm(steps[0]) > 0 and len(pictures[0].pixels) == 1
        ):
            raise InputError(
                f"series {series.index} ({series.name}): its slices are not parallel and evenly "
                "spaced, as NIfTI needs; use DICOM"
            )
        affine[:3, 2] = steps.mean(axis=0)
    array = np.concatenate([own.pixels for own in pictures])
    return np.ascontiguousarray(array.transpose(2, 1, 0), np.float32), affine


def _nibabel(path: PathLike) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise InputError(f"{path}: NIfTI needs NiBabel, of the extra `export`") from error
    return nibabel
