"""Flags and counters of readouts."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt


def flag_bits(*flags: int) -> int:
    """Return the bit mask of ISMRMRD flags, which count from 1."""
    return sum(1 << (flag - 1) for flag in flags)


NOISE = flag_bits(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
REVERSE = flag_bits(ismrmrd.ACQ_IS_REVERSE)
CALIBRATION = flag_bits(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
CALIBRATION_AND_IMAGING = flag_bits(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
LAST_IN_SLICE = flag_bits(ismrmrd.ACQ_LAST_IN_SLICE)
LAST_OF_ALL = flag_bits(ismrmrd.ACQ_LAST_IN_REPETITION, ismrmrd.ACQ_LAST_IN_MEASUREMENT)

NOT_IMAGING = {
    flag_bits(getattr(ismrmrd, f"ACQ_IS_{name}")): name.lower().replace("_", " ")
    for name in (
        "NOISE_MEASUREMENT",
        "NAVIGATION_DATA",
        "PHASECORR_DATA",
        "HPFEEDBACK_DATA",
        "DUMMYSCAN_DATA",
        "RTFEEDBACK_DATA",
        "SURFACECOILCORRECTIONSCAN_DATA",
        "PHASE_STABILIZATION_REFERENCE",
        "PHASE_STABILIZATION",
    )
}  # names by bit
NO_IMAGE = sum(NOT_IMAGING)  # mask of all

STEPS = ("kspace_encode_step_1", "kspace_encode_step_2")  # lines and partitions
COUNTERS = ("slice", "contrast", "phase", "repetition", "set")  # one image per combination
COUNTERS_AND_AVERAGE = (*COUNTERS, "average")
SLOWEST_FIRST = ("repetition", "set", "phase", "contrast", "slice")  # order of images in a series


def imaging_lines(heads: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Select imaging and calibration lines of the first encoding space.

    Further encoding spaces are of navigators or a separate reference scan.

    Parameters
    ----------
    heads : structured array, (acquisition,)
        Acquisition headers.

    Returns
    -------
    bool array, (acquisition,)
    """
    imaging: npt.NDArray[np.bool_] = heads["flags"] & np.uint64(NO_IMAGE) == 0
    return imaging & (heads["encoding_space_ref"] == 0)
