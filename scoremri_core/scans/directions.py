"""Along which directions of the patient the pixels of an image run.

The header of a readout names the directions of read, phase and slice encoding.  Which way the
image runs along them depends on the sign of the Fourier transform that the raw data are of:

- most vendors' converters write signal(k) = sum m(r) exp(-2 pi i k r), with k and r along the
  header's directions;
- Siemens' raw data (twix, and ISMRMRD that siemens_to_ismrmrd writes) are
  signal(k) = sum m(r) exp(+2 pi i k r), along read, phase and partitions alike.

The same inverse transform makes an image of either, so that an image of Siemens' data runs against
the directions of its header, about the pixel n // 2 that the header's position names.  The slices
of a 2D stack are not Fourier encoded and lie where their headers say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Directions = npt.NDArray[np.float64]

FIELDS = ("read_dir", "phase_dir", "slice_dir")  # of readouts and images
ATTRIBUTES = ("ImageRowDir", "ImageColumnDir", "ImageSliceDir")  # MRD's, of an image's pixels


def is_conjugate(header: Any) -> bool:
    """Whether raw data are of the transform exp(+2 pi i k r).

    Parameters
    ----------
    header : ISMRMRD header of the scan; None where it is not known
    """
    system = getattr(header, "acquisitionSystemInformation", None)
    return "siemens" in str(getattr(system, "systemVendor", None)).lower()


def pixel_directions(head: Any, header: Any, partitions: int) -> Directions:
    """Unit vectors (3, 3) along which x, y and z of an image's pixels run, a row each, LPS.

    Parameters
    ----------
    head : header of a readout or of the image, an object or a row of a structured array
    header : ISMRMRD header of the scan; None where it is not known
    partitions : Fourier-encoded along z; 1 in 2D
    """
    rows = [head[name] if isinstance(head, np.void) else getattr(head, name) for name in FIELDS]
    directions = np.array([list(row) for row in rows], float)
    if is_conjugate(header):
        directions[: 3 if partitions > 1 else 2] *= -1
    return directions + 0.0  # no zero has a sign


def as_attributes(directions: Directions) -> dict[str, list[str]]:
    """The directions of an image's pixels as MRD's attributes."""
    rows = ([f"{value:.18f}" for value in row] for row in directions)
    return dict(zip(ATTRIBUTES, rows, strict=True))


def image_directions(
    head: Any, attributes: Mapping[str, Any], header: Any, partitions: int
) -> Directions:
    """`pixel_directions` of an image: as its attributes state them, else by its header.

    Gadgetron's own chains state no ImageSliceDir, and repeat the header's read and phase
    directions whatever the vendor: all three attributes or none are believed.
    """
    try:
        stated = np.array([attributes[name] for name in ATTRIBUTES], float)
    except (KeyError, ValueError):
        stated = np.empty(0)
    return stated if stated.shape == (3, 3) else pixel_directions(head, header, partitions)
