"""Read the images of a file frame by frame, for a report."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import REFERENCES, Panel, ReportFrame
from scoremri_core.reports.geometry import Geometry, Vector
from scoremri_core.reports.pixels import brightest
from scoremri_core.scans.directions import image_directions
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.flags import SLOWEST_FIRST

logger = logging.getLogger(__name__)

Images = dict[str, np.ndarray]  # by title

OUTPUT, PREFIX = "SequenceDescriptionAdditional", "scoremri_"  # attribute and its prefix
SHOWN = {"mean", "std", "samples", *REFERENCES}  # the viewer's own panels; others are generic
RUN = {  # attributes of an image, by what a report calls them
    "Program": "scoremri_version",
    "Protocol": "protocol",
    "Scan date": "scan_date",
    "Patient position": "patient_position",
    "Sampler": "sampler",
    "Samples": "samples",
    "Noise levels": "steps",
    "Evaluations per sample": "evaluations",
    "Prior": "prior",
    "Seed": "seed",
    "Coil map sets": "maps",
    "Virtual coils": "coils",
    "Noise": "noise",
    "Variance scale": "variance_scale",
    "Inflation": "inflation",
}


@dataclass
class _StoredImage:
    """An image of the file, with its header and attributes."""

    data: h5py.Dataset
    index: int
    head: Any
    meta: dict[str, Any]

    @property
    def output(self) -> str:
        """Name of the output."""
        return str(self.meta.get(OUTPUT, "")).removeprefix(PREFIX)

    @property
    def counters(self) -> tuple[int, ...]:
        """Counters, the slowest first."""
        return tuple(int(self.head[name]) for name in SLOWEST_FIRST)

    @property
    def unit(self) -> str:
        """Unit of the pixels."""
        unit = str(self.meta.get("units", "")).partition(";")[0]
        unit = unit.removeprefix("pixels and window: ")
        return f"units of {unit}" if unit.startswith("k-space") else unit

    def channels(self) -> np.ndarray:
        """Return all channels, (channel, z, y, x); the magnitude of complex pixels."""
        pixels = self.data[self.index]
        return np.abs(pixels) if np.iscomplexobj(pixels) else pixels

    def pixels(self) -> np.ndarray:
        """Return the magnitude, (z, y, x)."""
        return np.abs(self.channels()[0])


@dataclass
class _Frame:
    """The images of one frame, by output; there may be several samples."""

    images: dict[str, list[_StoredImage]] = field(default_factory=lambda: defaultdict(list))

    @property
    def mean(self) -> _StoredImage:
        return self.images["mean"][0]


@dataclass(frozen=True)
class StoredImages:
    """Content of a file of images, for a report.

    Attributes
    ----------
    frames : list of ReportFrame
    count : int
        Frames in the file.
    run : dict of str to str
        Scan and settings of the first frame, by name.
    """

    frames: list[ReportFrame]
    count: int
    run: dict[str, str]


def read_frames(path: Path, group: str, most: int, reference: Path | None = None) -> StoredImages:
    """Read at most `most` frames of a file of images, evenly spaced.

    Parameters
    ----------
    path : Path
        ISMRMRD images.
    group : str
        HDF5 group of the images.
    most : int
        Maximum number of frames. A partition of a volume counts as a frame.
    reference : Path, optional
        Images to compare with: another file of images, matched by counters, or a scan with its
        truth, matched by slice.

    Returns
    -------
    StoredImages

    Raises
    ------
    InputError
        The file is not HDF5, or holds no image written by scoremri; the reference has no image
        of a frame or another matrix.
    """
    with open_hdf5(path) as file, _references(reference, group) as find_reference:
        frames = _stored_frames(file, path, group)
        slots = [(frame, z) for frame in frames for z in range(frame.mean.data.shape[2])]
        varying = [
            name for name in SLOWEST_FIRST if len({int(f.mean.head[name]) for f in frames}) > 1
        ]
        chosen = np.unique(
            np.linspace(0, len(slots) - 1, min(most, len(slots))).round().astype(int)
        )
        shown = [
            _shown(frame, z, varying, find_reference(frame, z))
            for frame, z in (slots[i] for i in chosen)
        ]
        return StoredImages(shown, len(slots), _run(frames[0]))


def _stored_frames(file: h5py.File, path: Path, group: str) -> list[_Frame]:
    """Return the frames of a file, at least one."""
    series = file.get(group)
    if not isinstance(series, h5py.Group):
        known = ", ".join(sorted(file)) or "none"
        raise InputError(f"{path}: no group '{group}' (groups of this file: {known})")
    if "data" in series:
        raise InputError(
            f"{path}: raw data, expected images: reconstruct them with scoremri replay"
        )
    frames = [frame for frame in _frames(series, str(path)) if frame.images["mean"]]
    if not frames:
        raise InputError(
            f"{path}: no images of scoremri in '{group}': expected image_<series> with the "
            f"attribute {OUTPUT} {PREFIX}mean, as written by replay"
        )
    return frames


@contextmanager
def _references(path: Path | None, group: str) -> Iterator[Callable[[_Frame, int], Images]]:
    """Yield a function that returns the reference image of a frame and partition, by title."""
    if path is None:
        yield lambda frame, z: {}
        return
    with open_hdf5(path) as file:
        truth = file.get("truth/image")
        stored = {} if truth is not None else {
            frame.mean.counters: frame for frame in _stored_frames(file, path, group)
        }  # fmt: skip

        def find(frame: _Frame, z: int) -> Images:
            head, image = frame.mean.head, None
            if frame.mean.counters in stored:
                image = stored[frame.mean.counters].mean.pixels()
                image = image[z] if z < len(image) else None
            elif truth is not None:
                at = z if frame.mean.data.shape[2] > 1 else int(head["slice"])
                stack = truth[int(head["contrast"])] if truth.ndim > 3 else truth
                image = np.abs(stack[at]) * _factor(frame.mean.meta) if at < len(stack) else None
            expected = frame.mean.data.shape[3:]
            if image is None or image.shape != expected:
                found = "none" if image is None else " x ".join(map(str, image.shape))
                size = " x ".join(map(str, expected))
                raise InputError(
                    f"{path}: reference of slice {int(head['slice'])}: {found}, expected an image "
                    f"of {size} pixels"
                )
            return {"Reference": image}

        yield find


def _run(frame: _Frame) -> dict[str, str]:
    """Describe scan and settings of a frame."""
    meta = frame.mean.meta
    words = {name: str(meta[key]) for name, key in RUN.items() if key in meta}
    words["Program"] = f"scoremri {meta.get('scoremri_version', '(unknown version)')}"
    words["Outputs"] = ", ".join(name for name, images in frame.images.items() if images)
    return {name: words.get(name, "unknown") for name in (*list(RUN)[:4], *words)}


def _frames(group: h5py.Group, path: str) -> list[_Frame]:
    """Group images by their counters; a repeated mean starts the next frame."""
    images: list[_StoredImage] = []
    series_of: dict[str, int] = {}
    for image in _images(group, path):
        number = int(image.head["image_series_index"])
        if series_of.setdefault(image.output, number) == number:  # else copied by a later gadget
            images.append(image)
    counts = Counter((image.output, image.counters) for image in images)
    frames: dict[tuple[int, ...], _Frame] = defaultdict(_Frame)
    seen: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for image in images:
        key = image.output, image.counters
        size = counts[key] // max(counts["mean", image.counters], 1)  # images per frame
        if image.output == "samples":
            size = _count(image.meta)
        place = (*image.counters, seen[key] // max(size, 1))
        frames[place].images[image.output].append(image)
        seen[key] += 1
    return [frames[key] for key in sorted(frames)]


def _images(group: h5py.Group, path: str) -> Iterator[_StoredImage]:
    """Yield the images written by scoremri, by series and image number."""
    images = []
    for name, series in group.items():
        if not name.startswith("image_") or not isinstance(series, h5py.Group):
            continue
        if not {"data", "header", "attributes"} <= set(series):
            raise InputError(f"{path}: {name} lacks data, header or attributes")
        if series["data"].ndim != 5 or not len(series["data"]) == len(series["header"]):
            raise InputError(f"{path}: {name} has data that are not (image, channel, z, y, x)")
        for index, (head, text) in enumerate(
            zip(series["header"], series["attributes"], strict=True)
        ):
            meta = _meta(text, f"{path}: {name}, image {index}")
            if str(meta.get(OUTPUT, "")).startswith(PREFIX):
                images.append(_StoredImage(series["data"], index, head, meta))
    images.sort(key=lambda p: (int(p.head["image_series_index"]), int(p.head["image_index"])))
    yield from images


def _meta(text: Any, name: str) -> dict[str, Any]:
    xml = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if not xml.strip():
        return {}
    try:
        return dict(ismrmrd.Meta.deserialize(xml))
    except Exception as error:
        raise InputError(f"{name}: invalid ISMRMRD attributes ({error})") from error


def _shown(frame: _Frame, z: int, varying: list[str], references: Images) -> ReportFrame:
    mean = frame.mean
    names = [f"{name} {int(mean.head[name])}" for name in varying]
    partitions = mean.data.shape[2]
    if partitions > 1:
        names.append(f"partition {z}")
    images = frame.images

    def pixels(output: str) -> list[np.ndarray]:
        return [image.pixels()[z] for image in images[output]]

    std = pixels("std")
    return ReportFrame(
        name=", ".join(names) or "Image",
        mean=mean.pixels()[z],
        std=std[0] if std else None,
        samples=tuple(pixels("samples")),
        reference_images=references
        | {title: pixels(name)[0] for name, title in REFERENCES.items() if images[name]},
        others=tuple(
            _panel(images[name], z) for name in images if images[name] and name not in SHOWN
        ),
        geometry=_geometry(mean, partitions),
        facts=_facts(mean.meta),
    )


def _panel(images: list[_StoredImage], z: int) -> Panel:
    """Return a panel of an output that the report does not know, such as a map of this frame."""
    first = images[0]
    pixels = tuple(channel[min(z, len(channel) - 1)] for i in images for channel in i.channels())
    top = max(brightest(each) for each in pixels)
    window, unit = (-top if any((each < 0).any() for each in pixels) else 0.0, top), first.unit
    if int(first.head["image_type"]) == ismrmrd.IMTYPE_PHASE:
        window, unit = (-np.pi, np.pi), "radians"
    title = str(first.meta.get("SeriesDescription", first.output)).removeprefix("scoremri ")
    kind = "colour" if first.meta.get("DataRole") == "Quantitative" else "grey"
    return Panel(f"{title[:1].upper()}{title[1:]}", pixels, window, unit, kind)


def _geometry(image: _StoredImage, partitions: int) -> Geometry:
    head = image.head
    x, y, z = _vector(head["field_of_view"])
    if not all(0 < size < np.inf for size in (x, y)):  # unknown: assume 1 mm pixels
        x, y = (float(size) for size in head["matrix_size"][:2])
    across, down, _ = image_directions(head, image.meta, None, partitions)
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
    return Facts(
        sampler=str(meta.get("sampler", "")),
        samples=_count(meta),
        evaluations=int(np.nan_to_num(_number(meta.get("evaluations")))),
        prior=str(meta.get("prior", "")),
        seed=str(meta.get("seed", "")),
        unsampled_fraction=_number(meta.get("unacquired")),
        fallback=str(meta.get("fallback", "")),
        factor=_factor(meta),
        **numbers,
    )


def _factor(meta: dict[str, Any]) -> float:
    """Return the factor of the pixels."""
    factor = _number(meta.get("GADGETRON_ScaleRatio"))
    return factor if np.isfinite(factor) else 1.0


def _count(meta: dict[str, Any]) -> int:
    """Return the number of samples of the frame, 0 without any."""
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
