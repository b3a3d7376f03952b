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
from scoremri_core.scans.formats.geometry import find_sidecar, nominal, read_sidecar
from scoremri_core.scans.formats.made import MadeScan, scan_of
from scoremri_core.scans.formats.recognise import bart_header

logger = logging.getLogger(__name__)

DIMENSIONS = 16
READ, PHASE_1, PHASE_2, COIL, ECHO, TIME, SLICE = 0, 1, 2, 3, 5, 10, 13
USED = (READ, PHASE_1, PHASE_2, COIL, ECHO, TIME, SLICE)
ORDER = (TIME, ECHO, SLICE, COIL, PHASE_2, PHASE_1, READ)  # as `scan_of` takes them


@contextmanager
def open_made(path: PathLike) -> Iterator[MadeScan]:
    """Open Cartesian k-space: read-out, phase 1, phase 2, coils, echoes, time and slices.

    A side-car (.json or .yaml) of the same name may tell the geometry, which BART's files do not.
    """
    header = bart_header(path)
    array = read_array(header)
    sizes = array.shape
    for axis, size in enumerate(sizes):
        if size > 1 and axis not in USED:
            raise InputError(
                f"{header}: dimension {axis} has {size} entries: expected k-space over the "
                f"dimensions {', '.join(map(str, USED))}"
            )
    if sizes[READ] == 1:
        raise InputError(
            f"{header}: a single sample in a readout (dimension 0): expected Cartesian k-space; "
            "grid other trajectories first, with `bart nufft`"
        )
    found = find_sidecar(header)
    if found is None:
        logger.warning("%s: no side-car: pixels of 1 mm are taken", header)
        geometry = nominal(sizes[PHASE_1], sizes[READ])
    else:
        geometry, _ = read_sidecar(found)
    ordered = array.transpose(*ORDER, *(a for a in range(array.ndim) if a not in ORDER))
    ordered = ordered.reshape(ordered.shape[: len(ORDER)])
    yield scan_of(str(header), ordered.shape, lambda *frame: np.asarray(ordered[frame]), geometry)


def read_array(header: Path) -> npt.NDArray[Any]:
    """Map an array of BART, complex64, its axes in BART's order.

    Raises
    ------
    InputError
        Where the .cfl is missing, or not as long as the .hdr says.
    """
    data = header.with_suffix(".cfl")
    check_readable(data)
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    words = lines[1].split() if len(lines) > 1 else []
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"{header}: expected the dimensions, whole numbers, in its second line")
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
