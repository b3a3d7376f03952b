"""BART files: .cfl with .hdr."""

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
READ, PHASE_1, PHASE_2, COIL, MAPS, ECHO = range(6)
TIME, TIME_2, SLICE, AVERAGE = 10, 11, 13, 14
ORDER = (TIME_2, TIME, ECHO, SLICE, COIL, PHASE_2, PHASE_1, READ)  # slowest first
OTHERS = {
    MAPS: "sets of coil maps or of their images",
    AVERAGE: "averages; average them first, with `bart avg 16384`",
}  # dimensions that the k-space of an image does not have


@contextmanager
def open_array_scan(path: PathLike) -> Iterator[ArrayScan]:
    """Open Cartesian k-space: readout, phase 1, phase 2, coils, echoes, times and slices.

    A plane of both phase-encode directions, (1, phase 1, phase 2), is an image of y and x.
    Non-Cartesian scans (1, sample, spoke) have the same dimensions but no unsampled positions; a
    plane without these needs a side-car with axes y and x.

    A side-car (.json or .yaml) of the same name gives the geometry, which BART files lack. Without
    it, unsampled lines along dimension 0 only make dimension 1 the readout.

    Parameters
    ----------
    path : path-like
        Of the .cfl or the .hdr, or without suffix.

    Yields
    ------
    ArrayScan

    Raises
    ------
    InputError
        The file is damaged or is not Cartesian k-space.
    """
    header = bart_header(path)
    array = read_array(path)
    _check_dimensions(header, array)
    found = find_sidecar(header)
    geometry, axes = (None, None) if found is None else read_sidecar(found)
    if array.shape[READ] == 1:
        if not {"y", "x"} <= set(axes or ()) and not _leaves_out_samples(array):
            raise InputError(
                f"{header}: readouts (dimension 0) of a single sample: expected Cartesian "
                "k-space; grid other trajectories first, with `bart nufft`, and give a plane of "
                'phase 1 and phase 2 a side-car with "axes": ["y", "x"]'
            )
        array = array.swapaxes(READ, PHASE_2)
    if geometry is None:
        logger.warning("%s: no side-car, assuming pixels of 1 mm", header)
        if array.shape[PHASE_2] == 1 and _has_gaps(array, READ) and not _has_gaps(array, PHASE_1):
            logger.warning(
                "%s: gaps in dimension 0, assuming that dimension 1 is the readout", header
            )
            array = array.swapaxes(READ, PHASE_1)
        geometry = nominal(array.shape[PHASE_1], array.shape[READ])
    ordered = array.transpose(*ORDER, *(a for a in range(array.ndim) if a not in ORDER))
    # both times are repetitions
    ordered = ordered.reshape(-1, *ordered.shape[2 : len(ORDER)])
    yield scan_of(str(header), ordered.shape, lambda *frame: np.asarray(ordered[frame]), geometry)


def _check_dimensions(header: Path, array: npt.NDArray[Any]) -> None:
    """Raise InputError for arrays that are not the k-space of an image."""
    for axis, size in enumerate(array.shape):
        if size > 1 and axis not in ORDER:
            known = ", ".join(map(str, sorted(ORDER)))
            reason = OTHERS.get(axis, f"expected k-space over the dimensions {known}")
            raise InputError(f"{header}: dimension {axis} has {size} entries: {reason}")
    if array.shape[READ] == 3 and array.shape[COIL] == 1 and not array.imag.any():
        raise InputError(f"{header}: a trajectory: expected its k-space")
    if array.shape[COIL] == 1 and np.isin(array, (0, 1)).all():
        raise InputError(f"{header}: a sampling pattern of 0 and 1: expected k-space")


def _has_gaps(array: npt.NDArray[Any], axis: int) -> bool:
    """Whether an axis has zeros between non-zero entries."""
    sampled = np.any(array != 0, axis=tuple(i for i in range(array.ndim) if i != axis))
    return not sampled[sampled.argmax() : len(sampled) - sampled[::-1].argmax()].all()


def _leaves_out_samples(plane: npt.NDArray[Any]) -> bool:
    """Whether unsampled positions of a plane are not only whole rows or columns."""
    others = tuple(axis for axis in range(plane.ndim) if axis not in (PHASE_1, PHASE_2))
    sampled = np.asarray(np.any(plane != 0, axis=others))
    box = sampled[np.ix_(sampled.any(axis=1), sampled.any(axis=0))]
    return not box.all()


def read_array(path: PathLike) -> npt.NDArray[Any]:
    """Memory-map a BART array.

    Parameters
    ----------
    path : path-like
        Of the .cfl or the .hdr, or without suffix.

    Returns
    -------
    complex64 array
        With the 16 dimensions of BART.

    Raises
    ------
    InputError
        The .cfl is missing, or its size contradicts the .hdr.
    """
    header, data = bart_header(path), data_file(Path(path))
    check_readable(data)
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    number = next((i for i, line in enumerate(lines) if line.startswith(DIMENSIONS_TITLE)), -1)
    words = lines[number + 1].split() if 0 <= number < len(lines) - 1 else []
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(
            f"{header}: expected dimensions, positive whole numbers, below '# Dimensions'"
        )
    sizes = [int(word) for word in words]
    sizes += [1] * (DIMENSIONS - len(sizes))
    expected = int(np.prod(sizes, dtype=object)) * np.dtype(np.complex64).itemsize
    if data.stat().st_size != expected:
        raise InputError(
            f"{data}: {data.stat().st_size} bytes, expected {expected} by {header.name}"
        )
    return np.memmap(data, np.complex64, "r", shape=tuple(sizes), order="F")


def write_array(path: PathLike, kspace: npt.NDArray[Any]) -> None:
    """Write k-space as .cfl and .hdr; not atomic, so that the folder should be temporary.

    Parameters
    ----------
    path : path-like
        Folder and name, with either suffix.
    kspace : complex64 array, (slice, coil, y, x)
    """
    slices, coils, ny, nx = kspace.shape
    sizes = [1] * DIMENSIONS
    sizes[READ], sizes[PHASE_1], sizes[COIL], sizes[SLICE] = nx, ny, coils, slices
    # BART is column-major: C order with reversed axes
    np.ascontiguousarray(kspace, np.complex64).tofile(Path(path).with_suffix(".cfl"))
    text = f"# Dimensions{os.linesep}{' '.join(map(str, sizes))} {os.linesep}"
    Path(path).with_suffix(".hdr").write_text(text, encoding="ascii")
