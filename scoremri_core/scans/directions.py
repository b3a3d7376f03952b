"""Directions of image pixels in patient coordinates.

The header of a readout has the directions of read, phase and slice encoding. The direction of the
pixels along them depends on the sign of the Fourier transform of the raw data:

- the converters of most vendors write s(k) = sum_r m(r) exp(-2 pi i k r), with k and r along the
  directions of the header;
- Siemens raw data (twix, and ISMRMRD from siemens_to_ismrmrd) are
  s(k) = sum_r m(r) exp(+2 pi i k r), along read, phase and partitions.

Both are reconstructed with the same inverse transform, so that an image of Siemens data is mirrored
against the directions of its header about pixel n // 2, which is at the position of the header.
Slices of a 2D stack are not Fourier encoded and lie at the positions of their headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ismrmrd.xsd import ismrmrdHeader

Directions = npt.NDArray[np.float64]

FIELDS = ("read_dir", "phase_dir", "slice_dir")  # of readouts and images
ATTRIBUTES = (
    "ImageRowDir",
    "ImageColumnDir",
    "ImageSliceDir",
)  # MRD attributes


def is_conjugate(header: ismrmrdHeader | None) -> bool:
    """Whether raw data are encoded with exp(+2 pi i k r).

    Parameters
    ----------
    header : ismrmrdHeader or None
        Of the scan; None: unknown.
    """
    system = getattr(header, "acquisitionSystemInformation", None)
    return "siemens" in str(getattr(system, "systemVendor", None)).lower()


def pixel_directions(head: Any, header: ismrmrdHeader | None, partitions: int) -> Directions:
    """Compute the directions of x, y and z of the pixels of an image.

    Parameters
    ----------
    head : AcquisitionHeader, ImageHeader or row of a structured array
        Header of a readout or of the image.
    header : ismrmrdHeader or None
        Of the scan; None: unknown.
    partitions : int
        Fourier encoded along z; 1 in 2D.

    Returns
    -------
    float array, (3, 3)
        Unit vectors of x, y and z as rows, in LPS coordinates.
    """
    rows = [head[name] if isinstance(head, np.void) else getattr(head, name) for name in FIELDS]
    directions = np.array([list(row) for row in rows], float)
    if is_conjugate(header):
        directions[: 3 if partitions > 1 else 2] *= -1
    return directions + 0.0  # no negative zeros


def as_attributes(directions: Directions) -> dict[str, list[str]]:
    """Convert pixel directions (3, 3) to MRD attributes."""
    rows = ([f"{value:.18f}" for value in row] for row in directions)
    return dict(zip(ATTRIBUTES, rows, strict=True))


def image_directions(
    head: Any, attributes: Mapping[str, Any], header: ismrmrdHeader | None, partitions: int
) -> Directions:
    """Read the pixel directions of an image from its attributes, else compute them.

    Attributes without ImageSliceDir are ignored: Gadgetron's chains write the read and phase
    directions of the header for every vendor.

    Parameters
    ----------
    head : ImageHeader
        See `pixel_directions`.
    attributes : mapping
        Of the image.
    header : ismrmrdHeader or None
        See `pixel_directions`.
    partitions : int
        See `pixel_directions`.

    Returns
    -------
    float array, (3, 3)
        As from `pixel_directions`.
    """
    try:
        given = np.array([attributes[name] for name in ATTRIBUTES], float)
    except (KeyError, ValueError):
        given = np.empty(0)
    return given if given.shape == (3, 3) else pixel_directions(head, header, partitions)
