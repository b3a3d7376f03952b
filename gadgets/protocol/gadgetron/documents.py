"""The header that comes with a scan, and the bounds of what it may ask for."""

from __future__ import annotations

import math

from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.scans.header import parse_header

MAX_SIDE = 8192  # of a matrix of a header,
MAX_POINTS = 1 << 28  # and its points in all: arrays are made by it, one value for each coil


def read_header(xml: str) -> ismrmrdHeader:
    """Parse an ISMRMRD header whose matrices are of a size that can be.

    Raises
    ------
    InputError
        Naming what is wrong with it.
    """
    header = parse_header(xml, "the header that came")
    check_matrices(header)
    return header


def check_matrices(header: ismrmrdHeader) -> None:
    """Refuse, with InputError, a header whose matrices would fill the memory."""
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
