"""Opening of raw data in any format as an ISMRMRD scan."""

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
}  # modules, each with `open_array_scan(path)`


@contextmanager
def open_any(path: PathLike, group: str = "dataset") -> Iterator[Scan | ArrayScan]:
    """Open raw data as a scan of ISMRMRD acquisitions.

    Parameters
    ----------
    path : path-like
        ISMRMRD, fastMRI HDF5, BART (.cfl or .hdr), Siemens twix (.dat), or a NumPy array with a
        side-car, recognised by content.
    group : str, optional
        Group of the scan in an ISMRMRD file.

    Yields
    ------
    Scan or ArrayScan

    Raises
    ------
    InputError
        The file is missing, damaged or of an unsupported format.
    """
    kind = recognise(path, group)
    if kind == "ismrmrd":
        with open_scan(path, group) as scan:
            yield scan
        return
    reader = importlib.import_module(f"{__package__}.{READERS[kind]}")
    with reader.open_array_scan(path) as array_scan:
        yield array_scan
