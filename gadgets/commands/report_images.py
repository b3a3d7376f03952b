"""The images of a file, put together frame by frame for a report."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import ReportFrame
from scoremri_core.reports.geometry import Geometry, Vector
from scoremri_core.scans.directions import image_directions
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.flags import SLOWEST_FIRST

logger = logging.getLogger(__name__)

OUTPUT, OURS = "SequenceDescriptionAdditional", "scoremri_"  # attribute, and how it begins
REFERENCE_TITLES = {"zero_filled": "Zero-filled", "classical": "Classical (regularised SENSE)"}


@dataclass
class _Place:
    """Where one image is in the file, with its attributes."""

    data: h5py.Dataset
    index: int
    head: Any
    meta: dict[str, Any]

    def pixels(self) -> np.ndarray:
        """(z, y, x) magnitude."""
        return np.abs(self.data[self.index][0])


@dataclass
class _Frame:
    """The images of one frame by what they are; of samples there are several."""

    found: dict[str, list[_Place]] = field(default_factory=lambda: defaultdict(list))

    @property
    def mean(self) -> _Place:
        return self.found["mean"][0]


def read_frames(path: Path, group: str, most: int) -> tuple[list[ReportFrame], int]:
    """Frames of a file of images, evenly spread where there are more than `most`; and how many.

    A partition of a volume counts as a frame.

    Raises
    ------
    InputError
        Where the file is no HDF5 or holds no posterior mean or classical image of ours.
    """
    with open_hdf5(path) as file:
        series = file.get(group)
        if not isinstance(series, h5py.Group):
            known = ", ".join(sorted(file)) or "none"
            raise InputError(f"{path}: no group '{group}' (groups of this file: {known})")
        if "data" in series:
            raise InputError(f"{path}: a scan, expected images: replay makes them of it")
        frames = [frame for frame in _frames(series, str(path)) if frame.found["mean"]]
        slots = [(frame, z) for frame in frames for z in range(frame.mean.data.shape[2])]
        if not slots:
            raise InputError(
                f"{path}: no images of ours in '{group}': expected image_<series> with the "
                f"attribute {OUTPUT} {OURS}mean, as replay writes them"
            )
        varying = [
            name for name in SLOWEST_FIRST if len({int(f.mean.head[name]) for f in frames}) > 1
        ]
        chosen = np.unique(
            np.linspace(0, len(slots) - 1, min(most, len(slots))).round().astype(int)
        )
        return [_shown(*slots[i], varying=varying) for i in chosen], len(slots)


def _frames(group: h5py.Group, path: str) -> list[_Frame]:
    """Images with the same counters make a frame; a second one of them makes the next."""
    frames: dict[tuple[int, ...], _Frame] = defaultdict(_Frame)
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    series_of: dict[str, int] = {}
    for place in _places(group, path):
        output = str(place.meta.get(OUTPUT, "")).removeprefix(OURS)
        number = int(place.head["image_series_index"])
        if series_of.setdefault(output, number) != number:
            continue  # a copy that a gadget behind ours made
        counters = tuple(int(place.head[name]) for name in SLOWEST_FIRST)
        size = _count(place.meta) if output == "samples" else 1
        turn = seen[(output, counters)] // size
        seen[(output, counters)] += 1
        key = (*counters, turn)
        frames[key].found[output].append(place)
    return [frames[key] for key in sorted(frames)]


def _places(group: h5py.Group, path: str) -> Iterator[_Place]:
    """Images of ours in the order of their series and numbers."""
    places = []
    for name, each in group.items():
        if not name.startswith("image_") or not isinstance(each, h5py.Group):
            continue
        if not {"data", "header", "attributes"} <= set(each):
            raise InputError(f"{path}: {name} lacks data, header or attributes")
        if each["data"].ndim != 5 or not len(each["data"]) == len(each["header"]):
            raise InputError(f"{path}: {name} has data of another shape than images have")
        for index, (head, text) in enumerate(zip(each["header"], each["attributes"], strict=True)):
            meta = _meta(text, f"{path}: {name}, image {index}")
            if str(meta.get(OUTPUT, "")).startswith(OURS):
                places.append(_Place(each["data"], index, head, meta))
    places.sort(key=lambda p: (int(p.head["image_series_index"]), int(p.head["image_index"])))
    yield from places


def _meta(text: Any, name: str) -> dict[str, Any]:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if not words.strip():
        return {}
    try:
        return dict(ismrmrd.Meta.deserialize(words))
    except Exception as error:
        raise InputError(f"{name}: its attributes are not ISMRMRD's ({error})") from error


def _shown(frame: _Frame, z: int, *, varying: list[str]) -> ReportFrame:
    mean = frame.mean
    names = [f"{name} {int(mean.head[name])}" for name in varying]
    partitions = mean.data.shape[2]
    if partitions > 1:
        names.append(f"partition {z}")
    of = frame.found

    def pixels(output: str) -> list[np.ndarray]:
        return [each.pixels()[z] for each in of[output]]

    std = pixels("std")
    return ReportFrame(
        name=", ".join(names) or "Image",
        mean=mean.pixels()[z],
        std=std[0] if std else None,
        samples=tuple(pixels("samples")),
        reference_images={t: pixels(name)[0] for name, t in REFERENCE_TITLES.items() if of[name]},
        geometry=_geometry(mean, partitions),
        facts=_facts(mean.meta),
    )


def _geometry(place: _Place, partitions: int) -> Geometry:
    head = place.head
    x, y, z = _vector(head["field_of_view"])
    if not all(0 < size < np.inf for size in (x, y)):  # as far as this file knows
        x, y = (float(size) for size in head["matrix_size"][:2])
    across, down, _ = image_directions(head, place.meta, None, partitions)
    return Geometry(
        (x, y, z / partitions),
        _vector(across),
        _vector(down),
        _vector(head["position"]) if partitions == 1 else None,
    )


def _facts(meta: dict[str, Any]) -> Facts:
    numbers = {
        name: _number(meta.get(name))
        for name in (
            "sigma_thermal",
            "sigma_n",
            "misfit",
            "inconsistent_lines",
            "acceleration",
        )
    }
    factor = _number(meta.get("GADGETRON_ScaleRatio"))
    return Facts(
        sampler=str(meta.get("sampler", "")),
        samples=_count(meta),
        evaluations=int(np.nan_to_num(_number(meta.get("evaluations")))),
        prior=str(meta.get("prior", "")),
        seed=str(meta.get("seed", "")),
        unsampled_fraction=_number(meta.get("unacquired")),
        fallback=str(meta.get("fallback", "")),
        factor=factor if np.isfinite(factor) else 1.0,
        **numbers,
    )


def _count(meta: dict[str, Any]) -> int:
    """Samples of the frame; 0 where there are none."""
    number = _number(meta.get("samples"))
    return int(number) if np.isfinite(number) else 0


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _vector(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
