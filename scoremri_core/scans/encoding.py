"""Encoding spaces of a scan: from its header, corrected by its readouts."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.scans.flags import CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE, STEPS

logger = logging.getLogger(__name__)

CARTESIAN = ("cartesian", "epi")
Space = TypeVar("Space")


class Readout(NamedTuple):
    """One line of k-space.

    Attributes
    ----------
    header : ismrmrd.AcquisitionHeader
    data : complex64 array, (coil, sample)
    ends : float array, (2, dimension), or None
        First and last sample of the trajectory, if there is one.
    """

    header: ismrmrd.AcquisitionHeader
    data: np.ndarray
    ends: np.ndarray | None = None

    @classmethod
    def of(cls, acquisition: ismrmrd.Acquisition) -> Readout:
        """Make a readout of an ismrmrd.Acquisition."""
        ends = acquisition.traj[[0, -1]] if acquisition.traj.size else None
        return cls(acquisition.getHead(), acquisition.data, ends)


def along_readout(
    header: ismrmrd.AcquisitionHeader, data: npt.NDArray[Any], nx: int
) -> tuple[int, npt.NDArray[Any]]:
    """Place the samples of a readout on the encoded matrix.

    Parameters
    ----------
    header : ismrmrd.AcquisitionHeader
    data : complex array, (coil, sample)
    nx : int
        Samples of the encoded matrix.

    Returns
    -------
    column : int
        Of the first sample, may be negative.
    data : complex array, (coil, sample)
        In forward direction, without discarded samples.
    """
    samples = data.shape[1]
    center = header.center_sample or samples // 2  # 0: not given
    pre, post = header.discard_pre, header.discard_post
    if header.flags & REVERSE:
        data, pre, post = data[:, ::-1], post, pre
        # a symmetric echo is centred in either direction, a partial echo is mirrored
        symmetric = abs(center - samples // 2) <= 1
        center = samples // 2 if symmetric else samples - 1 - center
    return nx // 2 - center + pre, data[:, pre : max(pre, samples - post)]


@dataclass(frozen=True)
class Encoding:
    """Encoding space of the ISMRMRD header; triples are (x, y, z).

    Attributes
    ----------
    matrix, recon_matrix : tuple of int
        Encoded and recon matrix.
    fov, recon_fov : tuple of float
        Fields of view in mm.
    center : tuple of int
        Encode steps 1 and 2 of DC.
    averages : int
    calibration_mode : str
        Empty: none.
    acceleration : int
        Product of both phase-encode directions.
    steps : tuple of range
        Encode steps 1 and 2 within their limits.
    flaw : str
        Reason why its readouts cannot be placed on a grid; empty: none.
    """

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov: tuple[float, float, float]
    center: tuple[int, int]
    averages: int
    calibration_mode: str
    acceleration: int
    steps: tuple[range, range]
    flaw: str = ""

    @property
    def lines(self) -> int:
        """Number of lines within the limits, without acceleration."""
        return len(self.steps[0]) * len(self.steps[1])

    @property
    def readout_points(self) -> int:
        """Readout points without oversampling."""
        points = round(self.matrix[0] * self.recon_fov[0] / self.fov[0])
        return min(max(points, 1), self.matrix[0])

    @property
    def points(self) -> tuple[int, ...]:
        """Shape (y, x) or (z, y, x) of k-space without readout oversampling."""
        return self._axes((self.readout_points, *self.matrix[1:]))

    @property
    def fov_of_points(self) -> tuple[float, ...]:
        """Field of view of `points` in mm."""
        return self._axes((self.fov[0] * self.readout_points / self.matrix[0], *self.fov[1:]))

    @property
    def recon_shape(self) -> tuple[int, ...]:
        """Shape (y, x) or (z, y, x) of the image."""
        return self._axes(self.recon_matrix)

    @property
    def fov_fraction(self) -> tuple[float, ...]:
        """Field of view of the image over that of `points`, per axis."""
        pairs = zip(self._axes(self.recon_fov), self.fov_of_points, strict=True)
        return tuple(image / encoded if encoded > 0 else 1.0 for image, encoded in pairs)

    def _axes(self, triple: tuple[Any, Any, Any]) -> tuple[Any, ...]:
        x, y, z = triple
        return (z, y, x) if self.matrix[2] > 1 else (y, x)

    def without_oversampling(self, points: int | None = None) -> Encoding:
        """Return the space of data whose readout oversampling is already removed.

        Parameters
        ----------
        points : int, optional
            Remaining samples of a readout. Default: `readout_points`.
        """
        nx = points or self.readout_points
        fov_x = self.fov[0] * nx / self.matrix[0]
        return replace(self, matrix=(nx, *self.matrix[1:]), fov=(fov_x, *self.fov[1:]))


def encodings(header: ismrmrdHeader) -> list[Encoding]:
    """Read the encoding spaces of an ISMRMRD header.

    The first is that of the images. The others are of calibration lines and navigators; an invalid
    one has a `flaw`.

    Parameters
    ----------
    header : ismrmrdHeader

    Returns
    -------
    list of Encoding

    Raises
    ------
    InputError
        No encoding, or the first has an invalid size or is not Cartesian.
    """
    if not header.encoding:
        raise InputError("the ISMRMRD header has no <encoding>")
    spaces = [_encoding(0, header.encoding[0])]
    for number, encoding in enumerate(header.encoding[1:], start=1):
        try:
            spaces.append(_encoding(number, encoding))
        except InputError as error:
            spaces.append(replace(spaces[0], flaw=str(error)))
    return spaces


def as_measured(encoding: Encoding, readouts: Sequence[Readout]) -> Encoding:
    """Correct an encoding space that contradicts the readouts of an image.

    - A single partition of an image without depth is a 2D scan.
    - DC lies among the calibration lines. If the centre of the header does not, it is taken from
      `idx.user[5]`, which Siemens' converter sets, or is the line with most energy.
    - Lines that fit into the matrix lie inside. If the centre of the header leaves some outside, DC
      is the line with most energy, or the nearest one that leaves none outside.

    Parameters
    ----------
    encoding : Encoding
    readouts : sequence of Readout
        Of one image.

    Returns
    -------
    Encoding
    """
    if encoding.matrix[2] > 1 and encoding.recon_matrix[2] == 1:
        partitions = {readout.header.idx.kspace_encode_step_2 for readout in readouts}
        if len(partitions) == 1:
            encoding = replace(encoding, matrix=(*encoding.matrix[:2], 1))
    line = _calibrated_center(encoding, readouts)
    encoding = replace(encoding, center=(line, encoding.center[1]))
    center = (_fitting_center(encoding, readouts, 1), _fitting_center(encoding, readouts, 2))
    return replace(encoding, center=center)


def _calibrated_center(encoding: Encoding, readouts: Sequence[Readout]) -> int:
    """Return encode step 1 of DC, which lies among the calibration lines."""
    flagged = [
        readout
        for readout in readouts
        if readout.header.flags & (CALIBRATION | CALIBRATION_AND_IMAGING)
    ]
    steps = [readout.header.idx.kspace_encode_step_1 for readout in flagged]
    if not steps or min(steps) <= encoding.center[0] <= max(steps):
        return encoding.center[0]
    stored = {int(readout.header.idx.user[5]) for readout in flagged}
    line = stored.pop() if len(stored) == 1 else -1
    if not min(steps) <= line <= max(steps):
        line = int(steps[_brightest(flagged)])
    logger.warning(
        "The centre of k-space is line %d in the header, outside of the calibration lines "
        "%d to %d; using line %d",
        encoding.center[0], min(steps), max(steps), line,
    )  # fmt: skip
    return line


def _brightest(readouts: Sequence[Readout]) -> int:
    """Return the index of the readout with most energy."""
    energy = [np.linalg.norm(readout.data.astype(np.complex128)) for readout in readouts]
    return int(np.argmax(np.nan_to_num(energy)))


def _fitting_center(encoding: Encoding, readouts: Sequence[Readout], axis: int) -> int:
    """Return the encode step of DC along axis 1 or 2 with all readouts inside the matrix."""
    size, center, name = encoding.matrix[axis], encoding.center[axis - 1], STEPS[axis - 1]
    steps = [getattr(readout.header.idx, name) for readout in readouts]
    first, last = min(steps), max(steps)
    row = center - size // 2  # the step in the first row
    if (row <= first and last < row + size) or not size // 2 <= last - first < size or size == 1:
        return center
    row = max(last - size + 1, min(first, steps[_brightest(readouts)] - size // 2))
    logger.warning(
        "With the centre at %s %d, some of the steps %d to %d are outside of the matrix; "
        "using centre %d",
        name, center, first, last, row + size // 2,
    )  # fmt: skip
    return row + size // 2


def numbered(spaces: Sequence[Space], number: int) -> Space:
    """Return the item of an encoding space; of the first if there is none of that number."""
    return spaces[number if number < len(spaces) else 0]


def _encoding(number: int, encoding: Any) -> Encoding:
    where = f"encoding {number} of the ISMRMRD header"
    trajectory = encoding.trajectory.value
    if trajectory not in CARTESIAN:
        raise InputError(f"{where} has trajectory {trajectory}: expected one of {CARTESIAN}")
    matrix, fov = _space(encoding.encodedSpace, f"{where}, encodedSpace")
    limits = encoding.encodingLimits
    rows = limits.kspace_encoding_step_1 if limits else None
    partitions = limits.kspace_encoding_step_2 if limits else None
    if partitions is not None and partitions.maximum == 0:
        matrix = (*matrix[:2], 1)  # z is the number of slices, or meaningless
    recon_matrix, recon_fov = _space(encoding.reconSpace, f"{where}, reconSpace")
    parallel = encoding.parallelImaging
    mode = parallel.calibrationMode.value if parallel and parallel.calibrationMode else ""
    factor = parallel.accelerationFactor if parallel else None
    return Encoding(
        matrix=matrix,
        fov=fov,
        recon_matrix=recon_matrix,
        recon_fov=recon_fov,
        center=(
            _center(rows, matrix[1]),
            _center(partitions, matrix[2]),
        ),
        averages=limits.average.maximum + 1 if limits and limits.average else 1,
        calibration_mode=mode,
        acceleration=factor.kspace_encoding_step_1 * factor.kspace_encoding_step_2 if factor else 1,
        steps=(_steps(rows, matrix[1]), _steps(partitions, matrix[2])),
    )


def _space(space: Any, where: str) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    size, fov = space.matrixSize, space.fieldOfView_mm
    if min(size.x, size.y, size.z) < 1:
        raise InputError(f"{where}: matrixSize {size.x} x {size.y} x {size.z} is not positive")
    if not (min(fov.x, fov.y) > 0 and all(map(math.isfinite, (fov.x, fov.y, fov.z)))):
        raise InputError(f"{where}: fieldOfView_mm {fov.x} x {fov.y} x {fov.z} is not positive")
    return (size.x, size.y, size.z), (fov.x, fov.y, fov.z)


def _center(limit: Any, size: int) -> int:
    # a centre of 0 with lines in more than half of the matrix is unset
    if limit is None or (limit.center == 0 and limit.maximum > size // 2):
        return size // 2
    return int(limit.center)


def _steps(limit: Any, size: int) -> range:
    return range(size) if limit is None else range(limit.minimum, limit.maximum + 1)


@dataclass(frozen=True)
class Limits:
    """Encode steps of one axis.

    Attributes
    ----------
    minimum : int
        First encode step.
    count : int
        Number of encode steps.
    center : int
        Encode step of DC.
    """

    minimum: int
    count: int
    center: int


def encoding_limits(header: ismrmrdHeader, step: str) -> Limits:
    """Read the limits of an encode step.

    Parameters
    ----------
    header : ismrmrdHeader
    step : str
        One of STEPS.

    Returns
    -------
    Limits
        Those of the matrix if the header has none.

    Raises
    ------
    InputError
        The centre is outside of the limits.
    """
    encoding = header.encoding[0]
    limits = getattr(encoding.encodingLimits, step.replace("encode", "encoding"))
    if limits is None:
        size = encoding.encodedSpace.matrixSize
        count = int(size.y if step == STEPS[0] else size.z)
        return Limits(0, count, count // 2)
    if not limits.minimum <= limits.center <= limits.maximum:
        raise InputError(
            f"header: the centre of {step} is {limits.center}, "
            f"outside of its limits {limits.minimum} to {limits.maximum}"
        )
    return Limits(limits.minimum, limits.maximum - limits.minimum + 1, limits.center)
