"""NumPy arrays of k-space, with a side-car that names the axes and tells the geometry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.scans.files import PathLike
from scoremri_core.scans.formats.geometry import SUFFIXES, find_sidecar, read_sidecar
from scoremri_core.scans.formats.made import MadeScan, scan_of

AXES = ("repetition", "contrast", "slice", "coil", "z", "y", "x")
REQUIRED = ("coil", "y", "x")


@contextmanager
def open_made(path: PathLike) -> Iterator[MadeScan]:
    """Open a .npy file of complex k-space, centred, zero where not measured."""
    path = Path(path)
    found = find_sidecar(path)
    if found is None:
        names = ", ".join(path.with_suffix(suffix).name for suffix in SUFFIXES)
        raise InputError(
            f"{path}: its side-car is missing (one of {names}): expected one with 'axes', such as "
            '["coil", "y", "x"], and \'field_of_view\', [x, y, z] in mm'
        )
    geometry, axes = read_sidecar(found)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not readable as a NumPy array") from error
    if axes is None or not set(REQUIRED) <= set(axes) <= set(AXES) or len(set(axes)) < len(axes):
        raise InputError(
            f"{found}: axes {list(axes or ())}: expected coil, y and x, and any of "
            f"{', '.join(axis for axis in AXES if axis not in REQUIRED)}"
        )
    if array.dtype.kind != "c" or array.ndim != len(axes):
        raise InputError(
            f"{path}: shape {array.shape}, {array.dtype}: expected complex values with the axes "
            f"({', '.join(axes)})"
        )
    there = [axis for axis in AXES if axis in axes]
    ordered = array.transpose([axes.index(axis) for axis in there])
    ordered = np.expand_dims(ordered, [n for n, axis in enumerate(AXES) if axis not in axes])
    yield scan_of(str(path), ordered.shape, lambda *frame: np.asarray(ordered[frame]), geometry)
