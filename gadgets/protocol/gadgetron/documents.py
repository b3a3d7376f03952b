"""ISMRMRD header of a stream, with limits on its matrices."""

from __future__ import annotations

import math

from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.scans.header import parse_header

MAX_SIDE = 8192  # of a matrix
MAX_POINTS = 1 << 28  # of a matrix; arrays have this size per coil


def read_header(xml: str) -> ismrmrdHeader:
    """Parse an ISMRMRD header and check its matrices.

    Raises
    ------
    InputError
        The header is invalid or has too large matrices.
    """
    header = parse_header(xml, "the ISMRMRD header")
    check_matrices(header)
    return header


def check_matrices(header: ismrmrdHeader) -> None:
    """Raise InputError for a header with too large matrices."""
    for number, encoding in enumerate(header.encoding):
        for field in ("encodedSpace", "reconSpace"):
            space = getattr(encoding, field)
            if space is None or space.matrixSize is None:
                continue
            size = space.matrixSize
            sides = (size.x, size.y, size.z)
            if min(sides) < 1 or max(sides) > MAX_SIDE or math.prod(sides) > MAX_POINTS:
                raise InputError(
                    f"the ISMRMRD header has {field} {size.x} x {size.y} x {size.z} in encoding "
                    f"{number}: expected sides of 1 to {MAX_SIDE}, {MAX_POINTS} points in all"
                )
