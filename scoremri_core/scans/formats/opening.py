"""The one door for raw data: whatever format it has, an ISMRMRD scan comes out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from scoremri_core.paths import PathLike
from scoremri_core.scans.files import Scan, open_scan
from scoremri_core.scans.formats.array_scan import ArrayScan
from scoremri_core.scans.formats.recognise import recognise

READERS = {
    "fastmri": "fastmri",
    "bart": "bart",
    "numpy": "numpy_array",
    "twix": "twix",
}  # modules, each with `open_made(path)`


@contextmanager
def open_any(path: PathLike, group: str = "dataset") -> Iterator[Scan | ArrayScan]:
    """Open raw data as a scan of ISMRMRD acquisitions.

    Parameters
    ----------
    path : ISMRMRD, fastMRI HDF5, BART (.cfl or .hdr), Siemens twix (.dat), or a NumPy array with
        a side-car; told by what is inside
    group : group of the scan inside an ISMRMRD file

    Raises
    ------
    InputError
        Where the file is missing, none of these or damaged, and naming the format where it is a
        known one that is not read here.
    """
    kind = recognise(path, group)
    if kind == "ismrmrd":
        with open_scan(path, group) as scan:
            yield scan
        return
    reader = importlib.import_module(f"{__package__}.{READERS[kind]}")
    with reader.open_made(path) as made:
        yield made
