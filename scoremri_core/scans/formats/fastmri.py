"""HDF5 files of the fastMRI data set: k-space with an ISMRMRD header."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike
from scoremri_core.scans.encoding import encodings
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.formats.array_scan import ArrayScan, scan_of
from scoremri_core.scans.formats.geometry import Geometry, nominal
from scoremri_core.scans.header import parse_valid_part

logger = logging.getLogger(__name__)


@contextmanager
def open_array_scan(path: PathLike) -> Iterator[ArrayScan]:
    """Open a file with `kspace`, (slice, coil, readout, phase) or (slice, readout, phase).

    The readout is the axis with the size of the encoded x, the last but one in fastMRI files.
    Lines that are zero or excluded by a dataset `mask` are not sampled. Positions and directions
    are nominal, as the files have none. Invalid sections of the header, which some data sets of
    this layout have, are ignored.

    Parameters
    ----------
    path : path-like

    Yields
    ------
    ArrayScan

    Raises
    ------
    InputError
        `kspace` or `mask` has another shape, or the encoding is invalid.

    References
    ----------
    .. [1] Zbontar J et al. fastMRI: an open dataset and benchmarks for accelerated MRI.
       arXiv:1811.08839 (2018).
    .. [2] Lyu M et al. M4Raw. Sci Data 10:264 (2023). doi:10.1038/s41597-023-02181-4.
    """
    with open_hdf5(path) as file:
        kspace = file["kspace"]
        if kspace.dtype.kind != "c" or kspace.ndim not in (3, 4):
            raise InputError(
                f"{path}: 'kspace' has shape {kspace.shape}, {kspace.dtype}: expected complex "
                "values, (slice, coil, readout, phase)"
            )
        header, size, geometry = None, None, None
        if "ismrmrd_header" in file:
            document = np.ravel(file["ismrmrd_header"][()])[0]
            header = parse_valid_part(document, f"{path}, 'ismrmrd_header'")
        if header and header.encoding:
            size, geometry = _geometry(header, f"{path}, 'ismrmrd_header'")
        else:
            logger.warning("%s: no encoding in 'ismrmrd_header', assuming pixels of 1 mm", path)
        slices, (rows, columns) = kspace.shape[0], kspace.shape[-2:]
        phase_first = size is not None and rows != size[0] and columns == size[0]
        nx, ny = (columns, rows) if phase_first else (rows, columns)
        coils = kspace.shape[1] if kspace.ndim == 4 else 1
        mask = _mask(path, file, ny)

        def plane(_repetition: int, _contrast: int, number: int) -> npt.NDArray[Any]:
            slice_ = np.asarray(kspace[number]).reshape(coils, rows, columns)
            lines = slice_ if phase_first else slice_.swapaxes(1, 2)
            return (lines if mask is None else lines * mask[:, None])[:, None]

        shape = (1, 1, slices, coils, 1, ny, nx)
        yield scan_of(str(path), shape, plane, geometry or nominal(ny, nx), header)


def _mask(path: PathLike, file: Any, lines: int) -> npt.NDArray[Any] | None:
    if "mask" not in file:
        return None
    mask = np.ravel(file["mask"][()])
    if len(mask) != lines:
        raise InputError(f"{path}: 'mask' has {len(mask)} entries, expected {lines}, one per line")
    return mask != 0


def _geometry(header: ismrmrdHeader, name: str) -> tuple[tuple[int, int], Geometry]:
    """Return the encoded matrix (x, y) and the geometry of a header."""
    try:
        encodings(header)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    encoded, recon = header.encoding[0].encodedSpace, header.encoding[0].reconSpace
    fov, image, size = encoded.fieldOfView_mm, recon.fieldOfView_mm, recon.matrixSize
    return (encoded.matrixSize.x, encoded.matrixSize.y), Geometry(
        (fov.x, fov.y, fov.z),
        oversampling=fov.x / image.x,
        recon_matrix=(size.x, size.y, 1),
        recon_field_of_view=(image.x, image.y, image.z),
    )
