"""Files of training data, with their subjects and splits."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scoremri_core.errors import InputError
from scoremri_core.scans.formats.recognise import SUFFIXES as RAW
from scoremri_core.scans.formats.recognise import (
    data_file,
    is_dicom,
    may_be_raw_data,
    recognise,
)
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
VOLUMES = (".nii", ".nii.gz")
SUFFIXES = (*VOLUMES, *RAW)
PHOTOGRAPHS = (".png", ".jpg", ".jpeg")  # read only if listed in a manifest
SHIPPED = {"photographs": Path(__file__).with_name("photographs.csv")}
REQUIRED = ("file", "subject", "split")


@dataclass(frozen=True)
class Source:
    """One file of images.

    Attributes
    ----------
    path : Path
        NIfTI volume, DICOM image, ISMRMRD scan, HDF5 file or photograph.
    subject : str
        All files of a subject are in one split.
    split : str
        "train", "val" or "test".
    contrast, licence : str
        For the prior's card.
    slice_axis : str
        Slice axis of a NIfTI volume: "0", "1", "2", "any" for all three, or "" for the axis of the
        thickest voxels ("any" for isotropic voxels).
    dataset : str
        Name of the images in an HDF5 file, "" for the default.
    weight : float
        Relative frequency of its slices in training.
    """

    path: Path
    subject: str
    split: str
    contrast: str = ""
    licence: str = ""
    slice_axis: str = ""
    dataset: str = ""
    weight: float = 1.0


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """List the files of folders, manifests and files, in a fixed order.

    A manifest, a .csv file or the `manifest.csv` of a folder, lists files relative to itself with
    the columns file, subject and split, and optionally contrast, licence, slice_axis, dataset and
    weight (see `Source`). Files without a manifest are split by the hash of their names: a tenth
    each for validation and test. Each counts as one subject, unless its name begins with BIDS's
    sub-NAME_; DICOM files are of the subject in their PatientID.

    Parameters
    ----------
    paths : sequence of Path
        Folders, searched recursively, manifests and files.

    Returns
    -------
    list of Source

    Raises
    ------
    InputError
        A missing path, a folder without volumes, a manifest with a missing column or a bad value, a
        subject in two splits.
    """
    listed: list[Source] = []
    others: list[Path] = []
    for path in paths:
        path = data_file(SHIPPED.get(str(path), path))
        manifest = path / "manifest.csv" if path.is_dir() else path
        if manifest.suffix == ".csv" and manifest.is_file():
            listed += _read_manifest(manifest)
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if _is_volume(p))
            if not found:
                raise InputError(f"{path}: no volumes: expected {', '.join(SUFFIXES)} files")
            others += found
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif not _is_volume(path):
            recognise(path)  # reports the format it seems to have
            raise InputError(f"{path}: expected a {', '.join(SUFFIXES)} file or a manifest (.csv)")
        else:
            others.append(path)
    return listed + _split(list(dict.fromkeys(others)), any(s.split == "val" for s in listed))


def select_split(sources: Iterable[Source], split: str) -> list[Source]:
    """Return the sources of one split; raise InputError if there are none."""
    chosen = [source for source in sources if source.split == split]
    if not chosen:
        raise InputError(f"data: no file of split {split!r}: expected at least one subject in it")
    return chosen


def describe_data(sources: Iterable[Source]) -> list[dict[str, str]]:
    """Return subjects, contrasts and licences for a prior's card."""
    contrasts_of: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        contrasts_of.setdefault((source.subject, source.licence), []).append(source.contrast)
    return [
        {
            "subject": subject,
            "contrasts": ", ".join(filter(None, contrasts)) or "not stated",
            "licence": licence or "not stated",
        }
        for (subject, licence), contrasts in contrasts_of.items()
    ]


def _read_manifest(manifest: Path) -> list[Source]:
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{manifest}: expected a CSV table in UTF-8 ({error})") from error
    if missing:
        raise InputError(f"{manifest}: the column {missing[0]!r} is missing")
    splits: dict[str, str] = {}
    sources = []
    for number, row in enumerate(rows, 2):
        where = f"{manifest}, line {number}"
        axis = row.get("slice_axis", "")
        if row["split"] not in SPLITS:
            raise InputError(f"{where}: split {row['split']!r}: expected train, val or test")
        if axis not in ("", "0", "1", "2", "any"):
            raise InputError(f"{where}: slice_axis {axis!r}: expected 0, 1, 2 or any")
        if splits.setdefault(row["subject"], row["split"]) != row["split"]:
            raise InputError(f"{where}: subject {row['subject']!r} is in two splits: expected one")
        path = _listed(manifest.parent, row["file"])
        if not path.is_file() and row.get("package"):
            raise InputError(f"{where}: {row['file']!r} is missing: install {row['package']}")
        if not path.is_file() or not (_is_volume(path) or is_photograph(path)):
            raise InputError(f"{where}: {row['file']!r}: expected a {', '.join(SUFFIXES)} file")
        try:
            weight = float(row.get("weight") or 1)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise InputError(f"{where}: weight {row['weight']!r}: expected a number above 0")
        sources.append(
            Source(
                path,
                row["subject"],
                row["split"],
                slice_axis=axis,
                weight=weight,
                **{k: row.get(k, "") for k in ("contrast", "licence", "dataset")},
            )
        )
    return sources


def is_photograph(path: Path) -> bool:
    """Whether a file is a photograph, by its suffix."""
    return path.suffix.lower() in PHOTOGRAPHS


def _listed(folder: Path, name: str) -> Path:
    """Resolve a path of a manifest: in its folder, or package:path in an installed package."""
    package, colon, inside = name.partition(":")
    if colon and package.isidentifier() and len(package) > 1:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            return Path(spec.origin).parent / inside
    return folder / name


def _split(paths: list[Path], validated: bool) -> list[Source]:
    """Split files that no manifest names by the hash of their subject."""
    subjects = {path: _subject(path) for path in paths}
    order = sorted(set(subjects.values()), key=lambda s: hashlib.sha256(s.encode()).hexdigest())
    tenth = len(order) // 10
    validation = tenth if validated or tenth else min(1, len(order) - 1)
    splits = dict.fromkeys(order, "train")
    splits |= dict.fromkeys(order[:validation], "val")
    splits |= dict.fromkeys(order[validation : validation + tenth], "test")
    if order:
        counts = [list(splits.values()).count(split) for split in SPLITS]
        logger.info(
            "%s without a manifest, split by the hash of the subject's name: "
            "%s for training, %d for validation, %d for test",
            counted(len(paths), "file"), counted(counts[0], "subject"), *counts[1:],
        )  # fmt: skip
    return [Source(path, subject, splits[subject]) for path, subject in subjects.items()]


def _subject(path: Path) -> str:
    if is_dicom(path):
        from scoremri_core.images.dicom import read_dicom

        patient = str(read_dicom(path, pixels=False).get("PatientID", ""))
        return patient or path.parent.name
    bids = re.match(r"sub-[A-Za-z0-9]+(?=_)", path.name)
    return bids.group() if bids else path.name[: -len(_suffix(path))]


def _suffix(path: Path) -> str:
    return next((s for s in SUFFIXES[::-1] if path.name.lower().endswith(s)), "")


def _is_volume(path: Path) -> bool:
    if path.name.lower().endswith(VOLUMES):
        return path.is_file() and not path.name.startswith(".")
    return may_be_raw_data(path) or (path.is_file() and is_dicom(path))
