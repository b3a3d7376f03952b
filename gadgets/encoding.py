"""The encoding space of a scan, and readouts placed on its grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import ismrmrd
import numpy as np

from scoremri_core.errors import InputError

CARTESIAN = ("cartesian", "epi")


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

    @property
    def readout_points(self) -> int:
        """Readout points once oversampling is removed."""
        points = round(self.matrix[0] * self.recon_fov[0] / self.fov[0])
        return min(max(points, 1), self.matrix[0])

    @property
    def fov_fraction(self) -> tuple[float, float]:
        """(y, x) field of view of the image over that of the oversampling-free k-space."""
        readout_fov = self.fov[0] * self.readout_points / self.matrix[0]
        return self.recon_fov[1] / self.fov[1], self.recon_fov[0] / readout_fov

    def without_oversampling(self) -> Encoding:
        """The same space as it is after readout oversampling was removed upstream."""
        nx = self.readout_points
        fov_x = self.fov[0] * nx / self.matrix[0]
        return replace(self, matrix=(nx, *self.matrix[1:]), fov=(fov_x, *self.fov[1:]))


def encodings(header: Any) -> list[Encoding]:
    """Encoding spaces of an ISMRMRD header.

    Raises
    ------
    InputError
        Where the header describes none, a size is not positive, or the trajectory is not
        Cartesian.
    """
    if not header.encoding:
        raise InputError("the ISMRMRD header has no <encoding>: matrix sizes are needed")
    return [_encoding(number, encoding) for number, encoding in enumerate(header.encoding)]


def _encoding(number: int, encoding: Any) -> Encoding:
    where = f"encoding {number} of the ISMRMRD header"
    trajectory = encoding.trajectory.value
    if trajectory not in CARTESIAN:
        raise InputError(f"{where} has trajectory {trajectory}: expected one of {CARTESIAN}")
    matrix, fov = _space(encoding.encodedSpace, f"{where}, encodedSpace")
    recon_matrix, recon_fov = _space(encoding.reconSpace, f"{where}, reconSpace")
    limits = encoding.encodingLimits
    parallel = encoding.parallelImaging
    mode = parallel.calibrationMode.value if parallel and parallel.calibrationMode else ""
    return Encoding(
        matrix=matrix,
        fov=fov,
        recon_matrix=recon_matrix,
        recon_fov=recon_fov,
        center=(
            _center(limits.kspace_encoding_step_1 if limits else None, matrix[1]),
            _center(limits.kspace_encoding_step_2 if limits else None, matrix[2]),
        ),
        averages=limits.average.maximum + 1 if limits and limits.average else 1,
        calibration_mode=mode,
    )


def _space(space: Any, where: str) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    size, fov = space.matrixSize, space.fieldOfView_mm
    if min(size.x, size.y, size.z) < 1:
        raise InputError(f"{where}: matrixSize {size.x} x {size.y} x {size.z} is not positive")
    if not min(fov.x, fov.y) > 0:
        raise InputError(f"{where}: fieldOfView_mm {fov.x} x {fov.y} is not positive")
    return (size.x, size.y, size.z), (fov.x, fov.y, fov.z)


def _center(limit: Any, size: int) -> int:
    # A centre of 0 below lines that fill more than half of the matrix is one left unset.
    if limit is None or (limit.center == 0 and limit.maximum > size // 2):
        return size // 2
    return int(limit.center)


def assemble(readouts: Sequence[Readout], encoding: Encoding) -> tuple[np.ndarray, list[str]]:
    """Zero-filled k-space of readouts, DC at the centre, readout oversampling removed.

    Readouts that share a place are averaged.  One that does not fit (another channel count than
    most have, a line outside of the matrix) is left out and reported.

    Returns
    -------
    kspace : complex64, (coil, y, x), or (slice, coil, y, x) where the matrix has partitions
    problems : one sentence for each kind of readout left out
    """
    from scoremri_core.fourier import remove_oversampling, resize, to_image

    nx, ny, nz = encoding.matrix
    channels = Counter(len(readout.data) for readout in readouts).most_common(1)[0][0]
    kspace = np.zeros((nz, channels, ny, nx), np.complex64)
    count = np.zeros((nz, ny, nx), np.float32)
    problems: dict[str, None] = {}  # ordered, each kind once
    for readout in readouts:
        idx = readout.header.idx
        y = idx.kspace_encode_step_1 - encoding.center[0] + ny // 2
        z = idx.kspace_encode_step_2 - encoding.center[1] + nz // 2 if nz > 1 else 0
        if len(readout.data) != channels:
            problems[f"a readout has {len(readout.data)} channels, expected {channels}"] = None
            continue
        if not (0 <= y < ny and 0 <= z < nz):
            problems[f"a readout lies outside of the encoded matrix of {nx} x {ny} x {nz}"] = None
            continue
        start, data = _along_readout(readout, nx)
        inside = data[:, max(0, -start) : max(0, nx - start)]
        if inside.shape[1] < data.shape[1]:
            problems[f"a readout reaches beyond the {nx} samples of the encoded matrix"] = None
        columns = slice(max(0, start), max(0, start) + inside.shape[1])
        kspace[z, :, y, columns] += inside
        count[z, y, columns] += 1
    kspace /= np.maximum(count, 1)[:, None]

    points = encoding.readout_points
    kspace = remove_oversampling(kspace, points)
    # Cropping the field of view smears samples over the part of a partial echo that was never
    # measured; zero is what says "not measured" downstream.
    nearest = np.rint((np.arange(points) - points // 2) * (nx / points)).astype(int) + nx // 2
    kspace *= (count[..., nearest] > 0)[:, None]
    if nz == 1:
        return kspace[0].astype(np.complex64, copy=False), list(problems)
    slices = resize(to_image(kspace, axes=(0,)), (encoding.recon_matrix[2],), axes=(0,))
    return slices.astype(np.complex64, copy=False), list(problems)


def _along_readout(readout: Readout, nx: int) -> tuple[int, np.ndarray]:
    """Column of the first kept sample, and the kept samples in the forward direction."""
    header, data = readout
    samples = data.shape[1]
    center = header.center_sample or samples // 2  # 0 is "not given"
    pre, post = header.discard_pre, header.discard_post
    if header.is_flag_set(ismrmrd.ACQ_IS_REVERSE):
        data, pre, post = data[:, ::-1], post, pre
        # A symmetric echo is centred whichever way its header counts; a partial one is mirrored.
        symmetric = abs(center - samples // 2) <= 1
        center = samples // 2 if symmetric else samples - 1 - center
    return nx // 2 - center + pre, data[:, pre : max(pre, samples - post)]
