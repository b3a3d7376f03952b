"""The HDF5 files of the fastMRI data set: k-space with an ISMRMRD header beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike
from scoremri_core.scans.encoding import encodings
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.formats.array_scan import ArrayScan, scan_of
from scoremri_core.scans.formats.geometry import Geometry, nominal
from scoremri_core.scans.header import parse_valid_part

logger = logging.getLogger(__name__)


@contextmanager
def open_made(path: PathLike) -> Iterator[ArrayScan]:
    """Open `kspace`, (slice, coil, readout, phase), or (slice, readout, phase) of a single coil.

    The readout is the axis of the header's encoded x, the last but one in fastMRI's own files.
    Zero-filled lines, and those that a dataset `mask` leaves out, were not measured.  The files
    say nothing of position and directions: those are nominal.  Other data sets of this layout have
    headers of which some sections are not valid ISMRMRD: these are not used.

    Source: Zbontar et al. 2018, arXiv:1811.08839; Lyu et al. 2023, doi:10.1038/s41597-023-02181-4.
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
            logger.warning("%s: no encoding in an 'ismrmrd_header': pixels of 1 mm are taken", path)
        slices, (rows, columns) = kspace.shape[0], kspace.shape[-2:]
        phase_first = size is not None and rows != size[0] and columns == size[0]
        nx, ny = (columns, rows) if phase_first else (rows, columns)
        coils = kspace.shape[1] if kspace.ndim == 4 else 1
        kept = _mask(path, file, ny)

        def plane(_repetition: int, _contrast: int, number: int) -> npt.NDArray[Any]:
            own = np.asarray(kspace[number]).reshape(coils, rows, columns)
            lines = own if phase_first else own.swapaxes(1, 2)
            return (lines if kept is None else lines * kept[:, None])[:, None]

        shape = (1, 1, slices, coils, 1, ny, nx)
        yield scan_of(str(path), shape, plane, geometry or nominal(ny, nx), header)


def _mask(path: PathLike, file: Any, lines: int) -> npt.NDArray[Any] | None:
    if "mask" not in file:
        return None
    mask = np.ravel(file["mask"][()])
    if len(mask) != lines:
        raise InputError(f"{path}: 'mask' has {len(mask)} entries, expected {lines}, one a line")
    return mask != 0


def _geometry(header: Any, name: str) -> tuple[tuple[int, int], Geometry]:
    """Encoded matrix (x, y), and geometry, of a header."""
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
