"""Writing of k-space as BART or NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scoremri_core.paths import check_new, placing
from scoremri_core.scans.files import Scan
from scoremri_core.scans.formats.array_scan import ArrayScan
from scoremri_core.scans.formats.bart import write_array
from scoremri_core.scans.formats.geometry import geometry_of, sidecar_text
from scoremri_core.scans.gridding import zero_filled_kspace

SLICE_AXES = ("slice", "coil", "y", "x")
Kspace = npt.NDArray[np.complex64]


def save_array(path: Path, scan: Scan | ArrayScan, overwrite: bool) -> list[Path]:
    """Write the k-space of a 2D scan as .cfl (with .hdr) or .npy, with a side-car .json.

    The k-space is that of `zero_filled_kspace`.

    Parameters
    ----------
    path : Path
        With suffix .cfl or .npy.
    scan : Scan or ArrayScan
    overwrite : bool
        Whether to replace existing files.

    Returns
    -------
    list of Path
        Files written.

    Raises
    ------
    InputError
        A file exists, or the scan is not 2D.
    """
    writers: dict[str, Callable[[Path, Kspace], None]] = {
        ".cfl": write_array,
        ".npy": np.save,
    }
    names = [path.name, path.with_suffix(".json").name]
    if path.suffix == ".cfl":
        names.append(path.with_suffix(".hdr").name)
    for name in names:
        check_new(path.with_name(name), overwrite)
    kspace = zero_filled_kspace(scan)
    geometry = geometry_of(scan, len(kspace))
    with placing(path.parent) as folder:
        writers[path.suffix](folder / path.name, kspace)
        text = sidecar_text(geometry, SLICE_AXES)
        (folder / path.with_suffix(".json").name).write_text(text, encoding="ascii")
    return [path.with_name(name) for name in names]
