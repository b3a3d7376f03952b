"""NIfTI export."""

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
SCANNER = 1  # code of scanner coordinates
SUFFIXES = (".nii", ".nii.gz")


def write_nifti(path: PathLike, array: npt.NDArray[Any], affine: Any, description: str) -> None:
    """Write an array as NIfTI.

    Parameters
    ----------
    path : path-like
        With suffix .nii or .nii.gz.
    array : array, (x, y, z) or (x, y, z, volume)
    affine : float array, (4, 4)
        From indices to mm in RAS.
    description : str
        Truncated to 79 characters.

    Raises
    ------
    InputError
        nibabel is missing, or another suffix.
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
    """Raise InputError if nibabel is missing."""
    _nibabel(path)


def write_series(path: Path, series: Series) -> None:
    """Write a series, and a side-car .json of its attributes.

    Parameters
    ----------
    path : Path
        With suffix .nii or .nii.gz.
    series : Series

    Raises
    ------
    InputError
        As `stacked`, or nibabel is missing.
    """
    array, affine = stacked(series)
    short = f"{series.description}; {RESEARCH_ONLY}"
    write_nifti(path, array, RAS_OF_LPS @ affine, short)
    fields = {
        "SeriesDescription": series.description,
        "SeriesNumber": series.index,
        "Units": series.units,
        "ImageComments": f"{RESEARCH_ONLY} {series.attribute('ImageComment')}".strip(),
    }
    attributes = series.pictures[0].attributes
    fields |= {name: value for name, value in attributes.items() if name not in fields}
    sidecar(path).write_text(json.dumps(fields, indent=1, default=str) + "\n")


def sidecar(path: Path) -> Path:
    """Return the path of the side-car .json of a .nii or .nii.gz."""
    suffix = next(suffix for suffix in SUFFIXES[::-1] if path.name.endswith(suffix))
    return path.with_name(path.name[: -len(suffix)] + ".json")


def stacked(series: Series) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Stack the images of a series.

    Parameters
    ----------
    series : Series

    Returns
    -------
    array : float32 array, (x, y, z) or (x, y, z, volume)
    affine : float array, (4, 4)
        From indices to mm in LPS.

    Raises
    ------
    InputError
        The volumes have different slices, or these are not parallel and evenly spaced.
    """
    volumes, affines = zip(*(_volume(series, pictures) for pictures in series.volumes), strict=True)
    alike = all(
        one.shape == volumes[0].shape and np.allclose(affine, affines[0], atol=0.01)
        for one, affine in zip(volumes, affines, strict=True)
    )
    if not alike:
        raise InputError(
            f"series {series.index} ({series.name}): volumes with different geometry, which NIfTI "
            "does not support; use DICOM"
        )
    array = np.stack(volumes, axis=-1) if len(volumes) > 1 else volumes[0]
    return array, affines[0]


def _volume(
    series: Series, pictures: Sequence[Picture]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    affine = pictures[0].affine.copy()
    if len(pictures) > 1:
        corners = np.array([picture.affine[:3, 3] for picture in pictures])
        steps = np.diff(corners, axis=0)
        even = np.allclose(steps, steps.mean(axis=0), atol=0.01)
        parallel = all(
            np.allclose(picture.affine[:3, :3], affine[:3, :3], atol=1e-3) for picture in pictures
        )
        if not (
            even and parallel and np.linalg.norm(steps[0]) > 0 and len(pictures[0].pixels) == 1
        ):
            raise InputError(
                f"series {series.index} ({series.name}): slices are not parallel and evenly "
                "spaced, as NIfTI requires; use DICOM"
            )
        affine[:3, 2] = steps.mean(axis=0)
    array = np.concatenate([picture.pixels for picture in pictures])
    return np.ascontiguousarray(array.transpose(2, 1, 0), np.float32), affine


def _nibabel(path: PathLike) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise InputError(f"{path}: NIfTI needs NiBabel: pip install 'scoremri[export]'") from error
    return nibabel
