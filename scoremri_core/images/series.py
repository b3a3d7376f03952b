"""The series of an ISMRMRD file of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike
from scoremri_core.scans.directions import image_directions
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.flags import COUNTERS

PREFIX = "scoremri_"  # of SequenceDescriptionAdditional, before the kind of image
PHASE = "phase"


@dataclass(frozen=True)
class Picture:
    """An image as it was sent.

    Attributes
    ----------
    pixels : (z, y, x)
    header : ismrmrd.ImageHeader
    attributes : text by name, of repeated ones a list
    scan : ISMRMRD header of its scan; None where it is not known
    """

    pixels: npt.NDArray[Any]
    header: Any
    attributes: dict[str, Any]
    scan: Any = None

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """Matrix (4, 4) from the indices (x, y, z) of a pixel to its centre in mm, LPS.

        The header's position is that of the point that the Fourier transform is centred on, which
        is the centre of pixel n // 2 along each axis (of n = 1: the only one).  So all images of
        a scan lie on each other whatever their matrix.
        """
        head = self.header
        shape = np.array(self.pixels.shape[::-1])
        sides = np.array(list(head.field_of_view), float) / shape
        directions = image_directions(head, self.attributes, self.scan, len(self.pixels))
        if not np.allclose(directions @ directions.T, np.eye(3), atol=1e-3):
            directions = np.eye(3)  # of files that leave them at zero
        matrix = np.eye(4)
        matrix[:3, :3] = directions.T * np.where((sides > 0) & (sides < np.inf), sides, 1)
        position = np.nan_to_num(list(head.position), posinf=0, neginf=0)
        matrix[:3, 3] = position - matrix[:3, :3] @ (shape // 2)
        return matrix

    @property
    def frame(self) -> tuple[int, ...]:
        """Its counters, but for the slice: contrast, phase, repetition, set."""
        return tuple(getattr(self.header, counter) for counter in COUNTERS if counter != "slice")


@dataclass(frozen=True)
class Series:
    """Images of one kind.

    Attributes
    ----------
    index : number of the series
    name : kind of image, such as mean or std, which also names its file
    pictures : in the order of the file
    """

    index: int
    name: str
    pictures: Sequence[Picture]

    def attribute(self, name: str) -> str:
        """An attribute of the first image; empty where it has none."""
        value = self.pictures[0].attributes.get(name, "")
        return str(value[0] if isinstance(value, list) and value else value)

    @property
    def is_phase(self) -> bool:
        """Whether the pixels are angles in radians."""
        return self.pictures[0].header.image_type == ismrmrd.IMTYPE_PHASE

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return self.attribute("SeriesDescription") or self.name

    @property
    def units(self) -> str:
        """Of the pixels, in words."""
        told = self.attribute("units").partition(";")[0].removeprefix("pixels and window: ")
        return "radians" if self.is_phase else f"{told or 'arbitrary'} units"

    @cached_property
    def volumes(self) -> list[list[Picture]]:
        """The images by what else than the slice they differ in; in each, one a slice, along them.

        Samples of a frame, which have the same counters, come one after the other.
        """
        seen: Counter[tuple[int, ...]] = Counter()
        groups: dict[tuple[int, ...], list[Picture]] = {}
        for picture in self.pictures:
            place = (*picture.frame, picture.header.slice)
            groups.setdefault((*picture.frame, seen[place]), []).append(picture)
            seen[place] += 1
        normal = self.pictures[0].affine[:3, 2]
        for pictures in groups.values():
            pictures.sort(key=lambda own: float(own.affine[:3, 3] @ normal))
        return [groups[key] for key in sorted(groups)]


def read_series(path: PathLike, group: str = "dataset", scan: Any = None) -> list[Series]:
    """Read the image series of an ISMRMRD file.

    Parameters
    ----------
    path : file of images
    group : of the images inside the file
    scan : ISMRMRD header of their scan, whose vendor tells how images lie that do not state it
        themselves; None where it is not known

    Raises
    ------
    InputError
        Where the file or the group is missing, or holds no images.
    """
    with open_hdf5(path) as file:
        if group not in file:
            known = ", ".join(sorted(file)) or "none"
            raise InputError(f"{path}: no group '{group}' (groups of this file: {known})")
        names = [name for name in file[group] if is_image_series(file[group][name])]
        if not names:
            raise InputError(f"{path} (group '{group}'): no ISMRMRD images")
    found = []
    with ismrmrd.Dataset(str(path), group, mode="r") as dataset:
        for name in names:
            images = [dataset.read_image(name, i) for i in range(dataset.number_of_images(name))]
            found.append((name, [picture_of(image, scan) for image in images]))
    return series_of([(name, pictures) for name, pictures in found if pictures])


def is_image_series(item: Any) -> bool:
    """Whether a member of an HDF5 group holds ISMRMRD images."""
    return hasattr(item, "keys") and {"data", "header", "attributes"} <= set(item.keys())


def series_of(groups: Sequence[tuple[str, Sequence[Picture]]]) -> list[Series]:
    """Series of images by the names of their groups; each has a name of its own."""
    series: list[Series] = []
    taken: Counter[str] = Counter()
    for group, pictures in groups:
        first = pictures[0]
        kind = str(first.attributes.get("SequenceDescriptionAdditional", ""))
        name = kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else group
        name = re.sub(r"[^\w.-]", "_", name)  # of a file
        taken[name] += 1
        if taken[name] > 1:  # images of another size
            name = f"{name}_{taken[name]}"
        series.append(Series(int(first.header.image_series_index), name, pictures))
    return sorted(series, key=lambda own: own.index)


def picture_of(image: ismrmrd.Image, scan: Any = None) -> Picture:
    """An ISMRMRD image with one channel; of several, the root sum of their squares."""
    data = np.asarray(image.data)
    if np.iscomplexobj(data) or len(data) > 1:
        data = np.sqrt((np.abs(data.astype(np.complex128)) ** 2).sum(axis=0, keepdims=True))
    attributes = {}
    if image.attribute_string.strip("\0 \n"):
        attributes = dict(ismrmrd.Meta.deserialize(image.attribute_string))
    return Picture(np.asarray(data[0], np.float32), image.getHead(), attributes, scan)
