"""Magnitude volumes as training slices, split by subject."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slice:
    """One magnitude slice, its 99th percentile scaled to 1."""

    image: NDArray[np.float16]
    subject: str
    contrast: str


def load_slices(folder: Path, split: str, stride: int = 1) -> list[Slice]:
    """Read every slice of one split of a folder of NIfTI volumes.

    Parameters
    ----------
    folder : holds `manifest.csv` with the columns file, subject, contrast, slice_axis (an axis
        number, or "any" for isotropic volumes, which are then cut along all three) and split.
    split : "train", "val" or "test".
    stride : keep every stride-th slice (isotropic volumes: every third of those, since their
        neighbours are nearly the same).

    Raises
    ------
    InputError : without a manifest, or with no slice of that split.
    """
    from nibabel.nifti1 import Nifti1Image

    slices: list[Slice] = []
    for row in _rows(folder, split):
        volume = np.asarray(Nifti1Image.from_filename(folder / row["file"]).dataobj, np.float32)
        isotropic = row["slice_axis"] == "any"
        for axis in range(3) if isotropic else [int(row["slice_axis"])]:
            step = 3 * stride if isotropic else stride
            for image in np.moveaxis(volume, axis, 0)[::step]:
                if (scaled := _scaled(image)) is not None:
                    slices.append(Slice(scaled, row["subject"], row["contrast"]))
        logger.debug("%s: %d slices so far", row["file"], len(slices))
    if not slices:
        raise InputError(f"{folder / 'manifest.csv'}: no volume of split {split!r}")
    return slices


def sources(folder: Path, split: str) -> list[dict[str, str]]:
    """Subject, contrasts and licence of what a split holds, for a prior's card."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in _rows(folder, split):
        found.setdefault((row["subject"], row["licence"]), []).append(row["contrast"])
    return [
        {"subject": subject, "contrasts": ", ".join(contrasts), "licence": licence}
        for (subject, licence), contrasts in found.items()
    ]


def _rows(folder: Path, split: str) -> list[dict[str, str]]:
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise InputError(f"{folder}: expected a manifest.csv naming volumes, subjects and splits")
    with manifest.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def _scaled(image: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """Scale the 99th percentile to 1; None for a slice with little in it."""
    image = np.maximum(np.nan_to_num(image), 0)
    high = np.percentile(image, 99)
    if high <= 0 or np.mean(image > 0.1 * high) < 0.08:
        return None
    return np.minimum(image / high, 8).astype(np.float16)
