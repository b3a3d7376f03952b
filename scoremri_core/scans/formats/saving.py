"""Raw data written in the formats that hold arrays of k-space."""

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

AXES = ("slice", "coil", "y", "x")
Kspace = npt.NDArray[np.complex64]


def save_array(path: Path, scan: Scan | ArrayScan, overwrite: bool) -> list[Path]:
    """Write the k-space of a 2D scan as .cfl (with .hdr) or .npy, with a side-car .json.

    Of several contrasts, phases, repetitions or sets it is the first, as `zero_filled_kspace`
    places it: readout oversampling removed, DC at the centre.

    Raises
    ------
    InputError
        Where a file is there already and is not to be replaced, or the scan does not fit.
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
        text = sidecar_text(geometry, AXES)
        (folder / path.with_suffix(".json").name).write_text(text, encoding="ascii")
    return [path.with_name(name) for name in names]
