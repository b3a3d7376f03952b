"""The encoding spaces of a scan: the grid of its header, held against what its readouts show."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.scans.flags import CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE, STEPS

logger = logging.getLogger(__name__)

CARTESIAN = ("cartesian", "epi")
Space = TypeVar("Space")


class Readout(NamedTuple):
    """One line of k-space.

    Attributes
    ----------
    header : ismrmrd.AcquisitionHeader.
    data : complex, (coil, sample).
    ends : (2, dimension), where the trajectory has its first and its last sample; None without one.
    """

    header: Any
    data: np.ndarray
    ends: np.ndarray | None = None

    @classmethod
    def of(cls, acquisition: Any) -> Readout:
        """The readout of an ismrmrd.Acquisition."""
        ends = acquisition.traj[[0, -1]] if acquisition.traj.size else None
        return cls(acquisition.getHead(), acquisition.data, ends)


def along_readout(header: Any, data: npt.NDArray[Any], nx: int) -> tuple[int, npt.NDArray[Any]]:
    """Column of a readout's first kept sample, and the kept samples in the forward direction.

    Parameters
    ----------
    header : ismrmrd.AcquisitionHeader
    data : (coil, sample)
    nx : samples of the encoded matrix
    """
    samples = data.shape[1]
    center = header.center_sample or samples // 2  # 0 is "not given"
    pre, post = header.discard_pre, header.discard_post
    if header.flags & REVERSE:
        data, pre, post = data[:, ::-1], post, pre
        # A symmetric echo is centred whichever way its header counts; a partial one is mirrored.
        symmetric = abs(center - samples // 2) <= 1
        center = samples // 2 if symmetric else samples - 1 - center
    return nx // 2 - center + pre, data[:, pre : max(pre, samples - post)]


@dataclass(frozen=True)
class Encoding:
    """One encoding space of the ISMRMRD header; triples are (x, y, z), lengths in mm."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov: tuple[float, float, float]
    center: tuple[int, int]  # encode steps 1 and 2 that hold DC
    averages: int
    calibration_mode: str
    acceleration: int  # of both phase-encode directions together
    steps: tuple[range, range]  # encode steps 1 and 2 within their limits
    flaw: str = ""  # why readouts of it cannot be placed

    @property
    def lines(self) -> int:
        """Lines within the limits, were the scan not accelerated."""
        return len(self.steps[0]) * len(self.steps[1])

    @property
    def readout_points(self) -> int:
        """Readout points once oversampling is removed."""
        points = round(self.matrix[0] * self.recon_fov[0] / self.fov[0])
        return min(max(points, 1), self.matrix[0])

    @property
    def points(self) -> tuple[int, ...]:
        """(y, x), or (z, y, x), of the k-space once readout oversampling is removed."""
        return self._axes((self.readout_points, *self.matrix[1:]))

    @property
    def fov_of_points(self) -> tuple[float, ...]:
        """Field of view of `points`, mm."""
        return self._axes((self.fov[0] * self.readout_points / self.matrix[0], *self.fov[1:]))

    @property
    def recon_shape(self) -> tuple[int, ...]:
        """(y, x), or (z, y, x), of the image."""
        return self._axes(self.recon_matrix)

    @property
    def fov_fraction(self) -> tuple[float, ...]:
        """Field of view of the image over that of `points`, axis by axis."""
        pairs = zip(self._axes(self.recon_fov), self.fov_of_points, strict=True)
        return tuple(image / encoded if encoded > 0 else 1.0 for image, encoded in pairs)

    def _axes(self, triple: tuple[Any, Any, Any]) -> tuple[Any, ...]:
        x, y, z = triple
        return (z, y, x) if self.matrix[2] > 1 else (y, x)

    def without_oversampling(self, points: int | None = None) -> Encoding:
        """The same space as it is after readout oversampling was removed upstream.

        Parameters
        ----------
        points : that were left of a readout; None takes `readout_points`.
        """
        nx = points or self.readout_points
        fov_x = self.fov[0] * nx / self.matrix[0]
        return replace(self, matrix=(nx, *self.matrix[1:]), fov=(fov_x, *self.fov[1:]))


def encodings(header: Any) -> list[Encoding]:
    """Encoding spaces of an ISMRMRD header.

    The first is that of the image.  The others serve calibration and navigators; one that cannot
    be used has a `flaw`.

    Raises
    ------
    InputError
        Where the header describes none, or in the first a size is not positive or the trajectory
        not Cartesian.
    """
    if not header.encoding:
        raise InputError("the ISMRMRD header has no <encoding>: matrix sizes are needed")
    spaces = [_encoding(0, header.encoding[0])]
    for number, encoding in enumerate(header.encoding[1:], start=1):
        try:
            spaces.append(_encoding(number, encoding))
        except InputError as error:
            spaces.append(replace(spaces[0], flaw=str(error)))
    return spaces


def as_measured(encoding: Encoding, readouts: Sequence[Readout]) -> Encoding:
    """The encoding space as the readouts show it, where the header disagrees with them.

    One partition of an image without depth is a 2D scan, whatever the header counts.  DC lies among
    the lines that are flagged as calibration: where the header's centre does not, it is the line
    that Siemens' converter notes in `idx.user[5]`, or else the one with most energy.  And all lines
    lie inside of the matrix if they fit: where the centre puts some outside, DC is the line with
    most energy, or the one nearest to it that has them all inside.
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
    """The encode step of DC in the lines, among those that are flagged as calibration."""
    flagged = [
        readout
        for readout in readouts
        if readout.header.flags & (CALIBRATION | CALIBRATION_AND_IMAGING)
    ]
    steps = [readout.header.idx.kspace_encode_step_1 for readout in flagged]
    if not steps or min(steps) <= encoding.center[0] <= max(steps):
        return encoding.center[0]
    noted = {int(readout.header.idx.user[5]) for readout in flagged}
    line = noted.pop() if len(noted) == 1 else -1
    if not min(steps) <= line <= max(steps):
        line = int(steps[_brightest(flagged)])
    logger.warning(
        "the header has the centre of k-space in line %d, the calibration lines are %d to %d: "
        "line %d is taken",
        encoding.center[0], min(steps), max(steps), line,
    )  # fmt: skip
    return line


def _brightest(readouts: Sequence[Readout]) -> int:
    """Index of the readout with most energy."""
    energy = [np.linalg.norm(readout.data.astype(np.complex128)) for readout in readouts]
    return int(np.argmax(np.nan_to_num(energy)))


def _fitting_center(encoding: Encoding, readouts: Sequence[Readout], axis: int) -> int:
    """The encode step of DC along axis 1 or 2 of the matrix, with all readouts inside."""
    size, center, name = encoding.matrix[axis], encoding.center[axis - 1], STEPS[axis - 1]
    steps = [getattr(readout.header.idx, name) for readout in readouts]
    first, last = min(steps), max(steps)
    row = center - size // 2  # the step in the first row
    if (row <= first and last < row + size) or not size // 2 <= last - first < size or size == 1:
        return center
    row = max(last - size + 1, min(first, steps[_brightest(readouts)] - size // 2))
    logger.warning(
        "with the centre in %s %d some of the steps %d to %d lie outside of the matrix: "
        "%d is taken",
        name, center, first, last, row + size // 2,
    )  # fmt: skip
    return row + size // 2


def numbered(spaces: Sequence[Space], number: int) -> Space:
    """What belongs to the encoding space of that number; to the first where there is none."""
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
        matrix = (*matrix[:2], 1)  # z then counts slices, or nothing
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
        raise InputError(f"{where}: fieldOfView_mm {fov.x} x {fov.y} x {fov.z} is no size")
    return (size.x, size.y, size.z), (fov.x, fov.y, fov.z)


def _center(limit: Any, size: int) -> int:
    # A centre of 0 below lines that fill more than half of the matrix is one left unset.
    if limit is None or (limit.center == 0 and limit.maximum > size // 2):
        return size // 2
    return int(limit.center)


def _steps(limit: Any, size: int) -> range:
    return range(size) if limit is None else range(limit.minimum, limit.maximum + 1)


@dataclass(frozen=True)
class Limits:
    """Encode steps of one axis: `count` of them from `minimum` on, DC at step `center`."""

    minimum: int
    count: int
    center: int


def encoding_limits(header: Any, step: str) -> Limits:
    """Read the limits of an encode step (one of STEPS); without them, the whole matrix.

    Raises
    ------
    InputError
        Where the centre lies outside the limits.
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
            f"outside its limits {limits.minimum} to {limits.maximum}"
        )
    return Limits(limits.minimum, limits.maximum - limits.minimum + 1, limits.center)
