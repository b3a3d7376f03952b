"""NumPy arrays of k-space, with a side-car of their axes and geometry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike
from scoremri_core.scans.formats.array_scan import ArrayScan, scan_of
from scoremri_core.scans.formats.geometry import SUFFIXES, Geometry, find_sidecar, read_sidecar
from scoremri_core.scans.formats.joined import with_noise, with_reference

ARRAY_AXES = ("repetition", "contrast", "slice", "coil", "z", "y", "x")
REQUIRED = ("coil", "y", "x")
PARTS = ("kspace", "calibration", "noise")  # of an .npz
Kspace = npt.NDArray[Any]


@contextmanager
def open_array_scan(path: PathLike) -> Iterator[ArrayScan]:
    """Open complex k-space, centred, zero where not sampled: a .npy, or `kspace` of a .npz.

    A .npz may also have `calibration`, a reference scan around DC with the same axes, and `noise`
    (coil, sample).

    Parameters
    ----------
    path : path-like

    Yields
    ------
    ArrayScan

    Raises
    ------
    InputError
        The side-car or an array is missing or invalid.
    """
    path = Path(path)
    found = find_sidecar(path)
    if found is None:
        names = ", ".join(path.with_suffix(suffix).name for suffix in SUFFIXES)
        raise InputError(
            f"{path}: no side-car ({names}): expected one with 'axes', such as "
            '["coil", "y", "x"], and \'field_of_view\', [x, y, z] in mm'
        )
    geometry, axes = read_sidecar(found)
    arrays = _arrays(path)
    if (
        axes is None
        or not set(REQUIRED) <= set(axes) <= set(ARRAY_AXES)
        or len(set(axes)) < len(axes)
    ):
        raise InputError(
            f"{found}: axes {list(axes or ())}: expected coil, y and x, and any of "
            f"{', '.join(axis for axis in ARRAY_AXES if axis not in REQUIRED)}"
        )
    kspace = _ordered(path, arrays["kspace"], axes)
    scan = _scan(path, kspace, geometry)
    if "calibration" in arrays:
        reference = _on_matrix(path, _ordered(path, arrays["calibration"], axes), kspace.shape)
        scan = with_reference(scan, _scan(path, reference, geometry))
    if "noise" in arrays:
        scan = with_noise(scan, np.asarray(arrays["noise"]))
    yield scan


def _arrays(path: Path) -> dict[str, Kspace]:
    """Read the arrays of a file by name; that of a .npy is `kspace`."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return {"kspace": stored}
        with stored:
            names = list(stored)
            arrays = {name: stored[name] for name in PARTS if name in names}
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise InputError(f"{path}: not readable as a NumPy array") from error
    if "kspace" not in arrays:
        raise InputError(f"{path}: no array 'kspace' among {', '.join(names)}")
    return arrays


def _ordered(path: Path, array: Kspace, axes: Sequence[str]) -> Kspace:
    """Transpose and expand an array to ARRAY_AXES."""
    if array.dtype.kind != "c" or array.ndim != len(axes):
        raise InputError(
            f"{path}: shape {array.shape}, {array.dtype}: expected complex values with the axes "
            f"({', '.join(axes)})"
        )
    order = [list(axes).index(axis) for axis in ARRAY_AXES if axis in axes]
    ordered = array.transpose(order)
    return np.expand_dims(ordered, [n for n, axis in enumerate(ARRAY_AXES) if axis not in axes])


def _on_matrix(path: Path, block: Kspace, shape: tuple[int, ...]) -> Kspace:
    """Zero-fill a reference scan around DC to the matrix of the image."""
    if block.shape[3] != shape[3] or any(a > b for a, b in zip(block.shape, shape, strict=True)):
        raise InputError(
            f"{path}: calibration has shape {block.shape}: expected at most {shape} over "
            f"({', '.join(ARRAY_AXES)}), with as many coils"
        )
    wide = np.zeros((*block.shape[:4], *shape[4:]), np.complex64)
    starts = [b // 2 - a // 2 for a, b in zip(block.shape[4:], shape[4:], strict=True)]
    z, y, x = (slice(start, start + n) for start, n in zip(starts, block.shape[4:], strict=True))
    wide[..., z, y, x] = block
    return wide


def _scan(path: Path, ordered: Kspace, geometry: Geometry) -> ArrayScan:
    return scan_of(str(path), ordered.shape, lambda *frame: np.asarray(ordered[frame]), geometry)
