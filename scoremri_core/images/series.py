"""Image series of an ISMRMRD file."""

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
from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike
from scoremri_core.scans.directions import image_directions
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.flags import COUNTERS

PREFIX = "scoremri_"  # of SequenceDescriptionAdditional, before the output
DIMENSIONLESS = "dimensionless"
TEXTS = ("SeriesDescription", "ImageComment", "ImageComments")


@dataclass(frozen=True)
class Picture:
    """Image of a series.

    Attributes
    ----------
    pixels : float32 array, (z, y, x)
    header : ismrmrd.ImageHeader
    attributes : dict
        Text by name; a list for repeated names.
    scan : ismrmrdHeader or None
        Of the scan; None: unknown.
    """

    pixels: npt.NDArray[Any]
    header: ismrmrd.ImageHeader
    attributes: dict[str, Any]
    scan: ismrmrdHeader | None = None

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """Affine (4, 4) from pixel indices (x, y, z) to pixel centres in mm, LPS.

        The position of the header is the origin of the Fourier transform, the centre of pixel
        n // 2 along each axis, so that images of different matrices align.
        """
        head = self.header
        shape = np.array(self.pixels.shape[::-1])
        sides = np.array(list(head.field_of_view), float) / shape
        directions = image_directions(head, self.attributes, self.scan, len(self.pixels))
        if not np.allclose(directions @ directions.T, np.eye(3), atol=1e-3):
            directions = np.eye(3)  # zero in some files
        matrix = np.eye(4)
        matrix[:3, :3] = directions.T * np.where((sides > 0) & (sides < np.inf), sides, 1)
        position = np.nan_to_num(list(head.position), posinf=0, neginf=0)
        matrix[:3, 3] = position - matrix[:3, :3] @ (shape // 2)
        return matrix

    @property
    def frame(self) -> tuple[int, ...]:
        """Counters except slice: contrast, phase, repetition, set."""
        return tuple(getattr(self.header, counter) for counter in COUNTERS if counter != "slice")


@dataclass(frozen=True)
class Series:
    """Image series.

    Attributes
    ----------
    index : int
        Number of the series.
    name : str
        Output, such as "mean" or "std"; also for file names.
    pictures : sequence of Picture
        In the order of the file.
    """

    index: int
    name: str
    pictures: Sequence[Picture]

    def attribute(self, name: str) -> str:
        """Return an attribute of the first image, or an empty string."""
        value = self.pictures[0].attributes.get(name, "")
        return str(value[0] if isinstance(value, list) and value else value)

    @property
    def is_phase(self) -> bool:
        """Whether the pixels are phases in radians."""
        return self.pictures[0].header.image_type == ismrmrd.IMTYPE_PHASE

    @property
    def description(self) -> str:
        """SeriesDescription of the first image, or the name."""
        return self.attribute("SeriesDescription") or self.name

    @property
    def units(self) -> str:
        """Units of the pixels."""
        units = self.attribute("units").partition(";")[0].removeprefix("pixels and window: ")
        if self.is_phase or units == DIMENSIONLESS:
            return "radians" if self.is_phase else DIMENSIONLESS
        return f"{units or 'arbitrary'} units"

    @property
    def has_units(self) -> bool:
        """Whether the pixels share the units of the scan's images; false for a g-factor."""
        return self.units not in ("radians", DIMENSIONLESS)

    @cached_property
    def volumes(self) -> list[list[Picture]]:
        """Images grouped by all counters except slice, in order of position.

        Samples of a frame, which have equal counters, are separate volumes.
        """
        seen: Counter[tuple[int, ...]] = Counter()
        groups: dict[tuple[int, ...], list[Picture]] = {}
        for picture in self.pictures:
            key = (*picture.frame, picture.header.slice)
            groups.setdefault((*picture.frame, seen[key]), []).append(picture)
            seen[key] += 1
        normal = self.pictures[0].affine[:3, 2]
        for pictures in groups.values():
            pictures.sort(key=lambda picture: float(picture.affine[:3, 3] @ normal))
        return [groups[key] for key in sorted(groups)]


def read_series(
    path: PathLike, group: str = "dataset", scan: ismrmrdHeader | None = None
) -> list[Series]:
    """Read the image series of an ISMRMRD file; complex ones as magnitude and phase.

    Parameters
    ----------
    path : path-like
    group : str, optional
        Of the images in the file.
    scan : ismrmrdHeader, optional
        Of the scan; its vendor gives the directions of images without direction attributes.

    Returns
    -------
    list of Series

    Raises
    ------
    InputError
        The file or the group is missing or has no images.
    """
    with open_hdf5(path) as file:
        if group not in file:
            known = ", ".join(sorted(file)) or "none"
            raise InputError(f"{path}: no group '{group}' (groups of this file: {known})")
        names = [name for name in file[group] if is_image_series(file[group][name])]
        if not names:
            raise InputError(f"{path} (group '{group}'): no ISMRMRD images")
    groups: list[tuple[str, Sequence[Picture]]] = []
    with ismrmrd.Dataset(str(path), group, mode="r") as dataset:
        for name in names:
            images = [dataset.read_image(name, i) for i in range(dataset.number_of_images(name))]
            kinds = zip(*(pictures_of(image, scan) for image in images), strict=True)
            groups += [
                (name if not i else f"{name}_phase", pictures) for i, pictures in enumerate(kinds)
            ]
    return series_of([(name, pictures) for name, pictures in groups if pictures])


def is_image_series(item: Any) -> bool:
    """Whether a member of an HDF5 group is a series of ISMRMRD images."""
    return hasattr(item, "keys") and {"data", "header", "attributes"} <= set(item.keys())


def series_of(groups: Sequence[tuple[str, Sequence[Picture]]]) -> list[Series]:
    """Make series with unique names of groups of images.

    Parameters
    ----------
    groups : sequence of (str, sequence of Picture)
        Name of the group in the file, and images.

    Returns
    -------
    list of Series
        By index.
    """
    series: list[Series] = []
    taken: Counter[str] = Counter()
    for group, pictures in groups:
        first = pictures[0]
        kind = str(first.attributes.get("SequenceDescriptionAdditional", ""))
        name = kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else group
        name = re.sub(r"[^\w.-]", "_", name)  # valid in file names
        taken[name] += 1
        if taken[name] > 1:  # images of another size
            name = f"{name}_{taken[name]}"
        series.append(Series(int(first.header.image_series_index), name, pictures))
    return sorted(series, key=lambda each: each.index)


def pictures_of(image: ismrmrd.Image, scan: ismrmrdHeader | None = None) -> tuple[Picture, ...]:
    """Make the pictures of an ISMRMRD image: magnitude, and phase if it is complex.

    Parameters
    ----------
    image : ismrmrd.Image
        Several channels are combined as root sum of squares, without phase.
    scan : ismrmrdHeader, optional
        Of the scan.

    Returns
    -------
    tuple of Picture
    """
    data = np.asarray(image.data)
    phase = np.angle(data[0]) if np.iscomplexobj(data) and len(data) == 1 else None
    head = image.getHead()
    if np.iscomplexobj(data) or len(data) > 1:
        data = np.sqrt((np.abs(data.astype(np.complex128)) ** 2).sum(axis=0, keepdims=True))
        head.image_type = ismrmrd.IMTYPE_MAGNITUDE
    attributes = {}
    if image.attribute_string.strip("\0 \n"):
        attributes = dict(ismrmrd.Meta.deserialize(image.attribute_string))
    magnitude = Picture(np.asarray(data[0], np.float32), head, attributes, scan)
    if phase is None:
        return (magnitude,)
    head = image.getHead()
    head.image_type = ismrmrd.IMTYPE_PHASE
    window = {"WindowCenter": "0", "WindowWidth": f"{2 * np.pi:.6g}"}
    named = {name: f"phase of {attributes[name]}" for name in TEXTS if name in attributes}
    if "SequenceDescriptionAdditional" in attributes:
        named["SequenceDescriptionAdditional"] = (
            f"{attributes['SequenceDescriptionAdditional']}_phase"
        )
    return magnitude, Picture(
        np.asarray(phase, np.float32), head, attributes | window | named, scan
    )
