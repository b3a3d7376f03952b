"""The encoding space of a scan, and readouts placed on its grid."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import resize
from scoremri_core.scans.flags import CALIBRATION, CALIBRATION_AND_IMAGING
from scoremri_core.scans.gridding import along_readout, with_field_of_view

logger = logging.getLogger(__name__)

CARTESIAN = ("cartesian", "epi")
Space = TypeVar("Space")
MAX_VALUES = 1 << 31  # of the k-space of a frame, 16 GiB, however many coils its readouts have


class Readout(NamedTuple):
    """One line of k-space: ismrmrd.AcquisitionHeader and complex data (coil, sample)."""

    header: Any
    data: np.ndarray


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

    def without_oversampling(self) -> Encoding:
        """The same space as it is after readout oversampling was removed upstream."""
        nx = self.readout_points
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

    One partition of an image without depth is a 2D scan, whatever the header counts.  And DC lies
    among the lines that are flagged as calibration: where the header's centre does not, it is the
    line that Siemens' converter notes in `idx.user[5]`, or else the one with most energy.
    """
    if encoding.matrix[2] > 1 and encoding.recon_matrix[2] == 1:
        partitions = {readout.header.idx.kspace_encode_step_2 for readout in readouts}
        if len(partitions) == 1:
            encoding = replace(encoding, matrix=(*encoding.matrix[:2], 1))
    flagged = [
        readout
        for readout in readouts
        if readout.header.flags & (CALIBRATION | CALIBRATION_AND_IMAGING)
    ]
    steps = [readout.header.idx.kspace_encode_step_1 for readout in flagged]
    if not steps or min(steps) <= encoding.center[0] <= max(steps):
        return encoding
    noted = {int(readout.header.idx.user[5]) for readout in flagged}
    energy = [np.linalg.norm(readout.data.astype(np.complex128)) for readout in flagged]
    center = noted.pop() if len(noted) == 1 else -1
    if not min(steps) <= center <= max(steps):
        center = steps[int(np.argmax(energy))]
    logger.warning(
        "the header has the centre of k-space in line %d, the calibration lines are %d to %d: "
        "line %d is taken",
        encoding.center[0], min(steps), max(steps), center,
    )  # fmt: skip
    return replace(encoding, center=(center, encoding.center[1]))


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


class Assembled(NamedTuple):
    """Readouts on their grid.

    Attributes
    ----------
    kspace : complex64, (coil, y, x), or (coil, z, y, x) where the matrix has partitions; DC at the
        centre, zero where not measured, readout oversampling removed
    variance : of the noise, over that of a single readout: less where readouts were averaged.
        Where some were averaged more often than others it is that of the line with the fewest,
        since the likelihood knows one noise for all of them and must not trust any too much.
    problems : one sentence for each kind of readout left out
    """

    kspace: np.ndarray
    variance: float
    problems: list[str]


def assemble(readouts: Sequence[Readout], encoding: Encoding) -> Assembled:
    """Zero-filled k-space of readouts.

    Readouts that share a place are averaged.  One that lies outside of the matrix is dropped with
    a warning; one that is flawed (another channel count than most have, values that are not
    finite) is left out and reported.

    Raises
    ------
    InputError
        For more coils than leave room for the matrix of the header.
    """
    nx, ny, nz = encoding.matrix
    channels = Counter(len(readout.data) for readout in readouts).most_common(1)[0][0]
    if channels * nx * ny * nz > MAX_VALUES:
        raise InputError(
            f"readouts of {channels} channels came for a matrix of {nx} x {ny} x {nz}: "
            f"expected at most {MAX_VALUES} values in a frame"
        )
    partitions: dict[int, list[tuple[int, Readout]]] = defaultdict(list)
    problems: dict[str, None] = {}  # ordered, each kind once
    outside = 0
    for readout in readouts:
        idx = readout.header.idx
        y = idx.kspace_encode_step_1 - encoding.center[0] + ny // 2
        z = idx.kspace_encode_step_2 - encoding.center[1] + nz // 2 if nz > 1 else 0
        if len(readout.data) != channels:
            problems[f"a readout has {len(readout.data)} channels, expected {channels}"] = None
        elif not (0 <= y < ny and 0 <= z < nz):
            outside += 1
        elif not np.isfinite(readout.data).all():
            problems["a readout holds values that are not finite"] = None
        else:
            partitions[z].append((y, readout))
    if outside:
        logger.warning(
            "%d readouts lie outside of the encoded matrix of %d x %d x %d and are dropped",
            outside, nx, ny, nz,
        )  # fmt: skip
    steps = {readout.header.idx.kspace_encode_step_2 for readout in readouts}
    if nz == 1 and len(steps) > 1:
        problems[f"its readouts are of {len(steps)} partitions, the header has one"] = None
    if outside and not partitions:
        problems[f"all readouts lie outside of the encoded matrix of {nx} x {ny} x {nz}"] = None
    kspace = np.zeros((channels, nz, ny, encoding.readout_points), np.complex64)
    fewest = np.inf  # readouts that a sample is the mean of
    for z, lines in partitions.items():
        plane, count = _plane(lines, (channels, ny, nx), problems)
        kspace[:, z] = with_field_of_view(plane, encoding.readout_points, -1)
        fewest = min(fewest, count[count > 0].min(initial=np.inf))
    variance = 1 / float(fewest) if np.isfinite(fewest) else 1.0
    return Assembled(kspace if nz > 1 else kspace[:, 0], variance, list(problems))


def _plane(
    lines: list[tuple[int, Readout]], shape: tuple[int, int, int], problems: dict[str, None]
) -> tuple[np.ndarray, np.ndarray]:
    """The mean (coil, y, x) of the readouts (y, readout) of a partition, and their count (y, x)."""
    nx = shape[2]
    plane = np.zeros(shape, np.complex64)
    count = np.zeros(shape[1:], np.float32)
    for y, readout in lines:
        start, data = along_readout(readout.header, readout.data, nx)
        inside = data[:, max(0, -start) : max(0, nx - start)]
        if inside.shape[1] < data.shape[1]:
            problems[f"a readout reaches beyond the {nx} samples of the encoded matrix"] = None
        columns = slice(max(0, start), max(0, start) + inside.shape[1])
        plane[:, y, columns] += inside
        count[y, columns] += 1
    plane /= np.maximum(count, 1)
    return plane, count


def on_grid_of(kspace: np.ndarray, own: Encoding, other: Encoding) -> np.ndarray:
    """K-space of one encoding space on the grid of another: its field of view, its matrix."""
    pairs = zip(own.points, own.fov_of_points, other.fov_of_points, strict=True)
    for axis, (points, fov, wanted) in enumerate(pairs, start=1):
        if fov > 0 and wanted > 0:
            kspace = with_field_of_view(kspace, max(1, round(points * wanted / fov)), axis)
    axes = range(1, kspace.ndim)
    resized: np.ndarray = resize(kspace, other.points, axes)
    return resized
