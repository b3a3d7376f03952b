"""Arrays of BART, the Berkeley Advanced Reconstruction Toolbox: .cfl with its .hdr."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike, check_readable
from scoremri_core.scans.formats.array_scan import ArrayScan, scan_of
from scoremri_core.scans.formats.geometry import find_sidecar, nominal, read_sidecar
from scoremri_core.scans.formats.recognise import DIMENSIONS_TITLE, bart_header, data_file

logger = logging.getLogger(__name__)

DIMENSIONS = 16
READ, PHASE_1, PHASE_2, COIL, MAPS, ECHO, TIME, TIME_2, SLICE, AVERAGE = (
    0,
    1,
    2,
    3,
    4,
    5,
    10,
    11,
    13,
    14,
)
ORDER = (TIME_2, TIME, ECHO, SLICE, COIL, PHASE_2, PHASE_1, READ)  # slowest first
OTHERS = {
    MAPS: "sets of coil maps, or of images seen with these",
    AVERAGE: "averages; take their mean first, with `bart avg 16384`",
}  # dimensions that k-space for an image does not have


@contextmanager
def open_made(path: PathLike) -> Iterator[ArrayScan]:
    """Open Cartesian k-space: read-out, phase 1, phase 2, coils, echoes, times and slices.

    A plane of both phase-encode directions, (1, phase 1, phase 2), is an image of y and x.  It has
    the dimensions of a non-Cartesian scan (1, sample, spoke), which leaves out no single samples: a
    plane that does not either needs a side-car with the axes y and x.

    A side-car (.json or .yaml) of the same name may tell the geometry, which BART's files do not.
    Without one, lines that are left out along dimension 0 alone make dimension 1 the readout.
    """
    header = bart_header(path)
    array = read_array(path)
    _check_dimensions(header, array)
    found = find_sidecar(header)
    geometry, axes = (None, None) if found is None else read_sidecar(found)
    if array.shape[READ] == 1:
        if not {"y", "x"} <= set(axes or ()) and not _leaves_out_samples(array):
            raise InputError(
                f"{header}: a single sample in a readout (dimension 0): expected Cartesian "
                "k-space; grid other trajectories first, with `bart nufft`, and give a plane of "
                'phase 1 and phase 2 a side-car with "axes": ["y", "x"]'
            )
        array = array.swapaxes(READ, PHASE_2)
    if geometry is None:
        logger.warning("%s: no side-car: pixels of 1 mm are taken", header)
        if array.shape[PHASE_2] == 1 and _has_gaps(array, READ) and not _has_gaps(array, PHASE_1):
            logger.warning("%s: dimension 0 has gaps: the readout is dimension 1", header)
            array = array.swapaxes(READ, PHASE_1)
        geometry = nominal(array.shape[PHASE_1], array.shape[READ])
    ordered = array.transpose(*ORDER, *(a for a in range(array.ndim) if a not in ORDER))
    # both times count repetitions
    ordered = ordered.reshape(-1, *ordered.shape[2 : len(ORDER)])
    yield scan_of(str(header), ordered.shape, lambda *frame: np.asarray(ordered[frame]), geometry)


def _check_dimensions(header: Path, array: npt.NDArray[Any]) -> None:
    """Refuse, with InputError, what is none of the k-space of an image."""
    for axis, size in enumerate(array.shape):
        if size > 1 and axis not in ORDER:
            what = OTHERS.get(axis, "expected k-space over the dimensions ")
            if axis not in OTHERS:
                what += ", ".join(map(str, sorted(ORDER)))
            raise InputError(f"{header}: dimension {axis} has {size} entries: {what}")
    if array.shape[READ] == 3 and array.shape[COIL] == 1 and not array.imag.any():
        raise InputError(f"{header}: a trajectory: expected the k-space that it belongs to")
    if array.shape[COIL] == 1 and np.isin(array, (0, 1)).all():
        raise InputError(f"{header}: a sampling pattern of 0 and 1: expected k-space")


def _has_gaps(array: npt.NDArray[Any], axis: int) -> bool:
    """Whether whole entries of an axis are zero between others that are not."""
    there = np.any(array != 0, axis=tuple(i for i in range(array.ndim) if i != axis))
    return not there[there.argmax() : len(there) - there[::-1].argmax()].all()


def _leaves_out_samples(plane: npt.NDArray[Any]) -> bool:
    """Whether a plane of phase 1 and phase 2 lacks more than whole rows or columns of it."""
    others = tuple(axis for axis in range(plane.ndim) if axis not in (PHASE_1, PHASE_2))
    there = np.asarray(np.any(plane != 0, axis=others))
    box = there[np.ix_(there.any(axis=1), there.any(axis=0))]
    return not box.all()


def read_array(path: PathLike) -> npt.NDArray[Any]:
    """Map an array of BART, complex64, its axes in BART's order.

    Parameters
    ----------
    path : of the .cfl or the .hdr, or of both without a suffix

    Raises
    ------
    InputError
        Where the .cfl is missing, or not as long as the .hdr says.
    """
    header, data = bart_header(path), data_file(Path(path))
    check_readable(data)
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    number = next((i for i, line in enumerate(lines) if line.startswith(DIMENSIONS_TITLE)), -1)
    words = lines[number + 1].split() if 0 <= number < len(lines) - 1 else []
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(
            f"{header}: expected the dimensions, whole numbers, below the line '# Dimensions'"
        )
    sizes = [int(word) for word in words]
    sizes += [1] * (DIMENSIONS - len(sizes))
    expected = int(np.prod(sizes, dtype=object)) * np.dtype(np.complex64).itemsize
    if data.stat().st_size != expected:
        raise InputError(
            f"{data}: {data.stat().st_size} bytes, where {header.name} expects {expected}"
        )
    return np.memmap(data, np.complex64, "r", shape=tuple(sizes), order="F")


def write_array(path: PathLike, kspace: npt.NDArray[Any]) -> None:
    """Write k-space (slice, coil, y, x) as .cfl and .hdr in the folder and with the name of path.

    Not whole or not at all by itself: the folder is to be a temporary one.
    """
    slices, coils, ny, nx = kspace.shape
    sizes = [1] * DIMENSIONS
    sizes[READ], sizes[PHASE_1], sizes[COIL], sizes[SLICE] = nx, ny, coils, slices
    # column-major, so that C order holds the axes the other way round
    np.ascontiguousarray(kspace, np.complex64).tofile(Path(path).with_suffix(".cfl"))
    text = f"# Dimensions{os.linesep}{' '.join(map(str, sizes))} {os.linesep}"
    Path(path).with_suffix(".hdr").write_text(text, encoding="ascii")
