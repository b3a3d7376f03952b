"""Readouts of a Cartesian scan on their grid: the one way there, of the stream and of files."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace
from scoremri_core.mri.fourier import change_field_of_view, resize
from scoremri_core.paths import PathLike
from scoremri_core.scans.encoding import (
    Encoding,
    Readout,
    along_readout,
    encoding_limits,
    encodings,
)
from scoremri_core.scans.files import Readable
from scoremri_core.scans.flags import COUNTERS, STEPS, imaging_lines
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.sorting import ImageLines, sort_readouts

logger = logging.getLogger(__name__)

MAX_VALUES = 1 << 31  # of the k-space of a frame, 16 GiB, however many coils its readouts have

Complex = npt.NDArray[np.complex64]
Counts = npt.NDArray[np.float32]


class Assembled(NamedTuple):
    """Readouts on their grid.

    Attributes
    ----------
    values : complex64, (coil, y, x), or (coil, z, y, x) if the matrix has partitions
        DC at the centre, zero where not measured, readout oversampling removed.
    averages : float32, (y, x) or (z, y, x)
        Number of readouts that each sample is the mean of, 0 where not measured.
    problems : list of str
        One sentence for each kind of readout left out.
    """

    values: Complex
    averages: Counts
    problems: list[str]

    def kspace(self, noise_covariance: Any = None, calibration: KSpace | None = None) -> KSpace:
        """Checked k-space.

        Parameters
        ----------
        noise_covariance : complex array, (coil, coil), optional
            Of one readout.
        calibration : KSpace, optional
        """
        return KSpace.of(
            self.values,
            mask=self.averages > 0,
            averages=self.averages,
            calibration=calibration,
            noise_covariance=noise_covariance,
        )


def assemble(readouts: Sequence[Readout], encoding: Encoding) -> Assembled:
    """Zero-filled k-space of readouts.

    Readouts that share a place are averaged.  One that lies outside of the matrix, or holds values
    that are not finite, is dropped with a warning; one of another channel count than most have is
    left out and reported.

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
    outside = spoilt = 0
    for readout in readouts:
        idx = readout.header.idx
        y = idx.kspace_encode_step_1 - encoding.center[0] + ny // 2
        z = idx.kspace_encode_step_2 - encoding.center[1] + nz // 2 if nz > 1 else 0
        if len(readout.data) != channels:
            problems[f"a readout has {len(readout.data)} channels, expected {channels}"] = None
        elif not (0 <= y < ny and 0 <= z < nz):
            outside += 1
        elif not np.isfinite(readout.data).all():
            spoilt += 1
        else:
            partitions[z].append((y, readout))
    if outside:
        logger.warning(
            "%d readouts lie outside of the encoded matrix of %d x %d x %d and are dropped",
            outside, nx, ny, nz,
        )  # fmt: skip
    if spoilt:
        logger.warning("%d readouts hold values that are not finite and are dropped", spoilt)
    steps = {readout.header.idx.kspace_encode_step_2 for readout in readouts}
    if nz == 1 and len(steps) > 1:
        problems[f"its readouts are of {len(steps)} partitions, the header has one"] = None
    if outside and not partitions:
        problems[f"all readouts lie outside of the encoded matrix of {nx} x {ny} x {nz}"] = None
    points = encoding.readout_points
    kspace = np.zeros((channels, nz, ny, points), np.complex64)
    averages = np.zeros((nz, ny, points), np.float32)
    for z, lines in partitions.items():
        rows = sorted({y for y, _ in lines})
        plane, count = _plane(lines, rows, (channels, nx), problems)
        kspace[:, z, rows], averages[z, rows] = with_field_of_view(plane, count, points, -1)
    if nz == 1:
        kspace, averages = kspace[:, 0], averages[0]
    return Assembled(kspace, averages, list(problems))


def _plane(
    lines: list[tuple[int, Readout]],
    rows: list[int],
    shape: tuple[int, int],
    problems: dict[str, None],
) -> tuple[Complex, Counts]:
    """The mean (coil, row, x) of the readouts (y, readout) of a partition, and their count."""
    channels, nx = shape
    plane = np.zeros((channels, len(rows), nx), np.complex64)
    count = np.zeros((len(rows), nx), np.float32)
    row_of = {y: row for row, y in enumerate(rows)}
    for y, readout in lines:
        start, data = along_readout(readout.header, readout.data, nx)
        inside = data[:, max(0, -start) : max(0, nx - start)]
        if inside.shape[1] < data.shape[1]:
            problems[f"a readout reaches beyond the {nx} samples of the encoded matrix"] = None
        columns = slice(max(0, start), max(0, start) + inside.shape[1])
        plane[:, row_of[y], columns] += inside
        count[row_of[y], columns] += 1
    if count.max(initial=0) > 1:
        plane /= np.maximum(count, 1)
    return plane, count


def with_field_of_view(
    kspace: Complex, averages: Counts, points: int, axis: int
) -> tuple[Complex, Counts]:
    """Crop or pad the field of view of k-space (coil, ...) along an axis to `points` points.

    The change smears samples along the axis: a sample has the averages of the nearest one before,
    and is zero if that one was not measured.
    """
    before = kspace.shape[axis]
    if before == points:
        return kspace, averages
    kept = averages.take(_nearest(before, points), axis=axis if axis < 0 else axis - 1)
    changed: Complex = change_field_of_view(kspace, points, axis) * (kept > 0)
    return changed, kept


def _nearest(before: int, points: int) -> npt.NDArray[np.int_]:
    """For each of `points` samples of an axis the nearest of the `before` that there were."""
    nearest = np.rint((np.arange(points) - points // 2) * (before / points)).astype(int)
    return np.clip(nearest + before // 2, 0, before - 1)


def on_grid_of(assembled: Assembled, own: Encoding, other: Encoding) -> Assembled:
    """K-space of one encoding space on the grid of another: its field of view, its matrix."""
    kspace, averages, problems = assembled
    pairs = zip(own.points, own.fov_of_points, other.fov_of_points, strict=True)
    for axis, (points, fov, wanted) in enumerate(pairs, start=1):
        if fov > 0 and wanted > 0:
            size = max(1, round(points * wanted / fov))
            kspace, averages = with_field_of_view(kspace, averages, size, axis)
    axes = range(kspace.ndim - 1)
    return Assembled(
        resize(kspace, other.points, [axis + 1 for axis in axes]),
        resize(averages, other.points, axes),
        problems,
    )


def gridded(scan: Readable) -> list[KSpace]:
    """K-space of each slice of a 2D scan, for work outside a stream.

    Lines of several averages are averaged; of several contrasts, phases, repetitions or sets the
    first is taken.  Lines outside of the matrix are dropped, with a warning, as in the stream.

    Returns
    -------
    list of KSpace, (coil, y, x)
        Slices in the order of their counters, which may begin anywhere and have gaps. y is the
        encoded matrix with DC at ny // 2, x has the readout oversampling removed.

    Raises
    ------
    InputError
        Where readouts differ in their channels or all lie outside of the matrix, or the scan is 3D.
    """
    encoding = encodings(scan.header)[0]
    encoding_limits(scan.header, STEPS[0])  # which must hold their centre
    heads = scan.heads()
    imaging = imaging_lines(heads)
    for counter in COUNTERS[1:]:
        imaging &= heads["idx"][counter] == heads["idx"][counter][imaging].min(initial=65535)
    if not imaging.any():
        raise InputError(f"{scan.name}: no imaging lines")
    partitions = np.unique(heads["idx"][STEPS[1]][imaging])
    if encoding.matrix[2] > 1 and (len(partitions) > 1 or encoding.recon_matrix[2] > 1):
        raise InputError(f"{scan.name}: a 3D scan, expected 2D slices")
    channels = int(heads["active_channels"][imaging][0])
    readouts: dict[int, list[Readout]] = defaultdict(list)
    for wanted, acquisition in zip(imaging, scan, strict=True):
        if wanted:
            readout = Readout.of(acquisition)
            readouts[readout.header.idx.slice].append(readout)
    images: dict[int, ImageLines] = {}
    for own in readouts.values():
        for lines in sort_readouts(own, encoding):  # which may be of other slices, or echoes
            images.setdefault(lines.readouts[0].header.idx.slice, lines)
    del readouts
    slices = []
    for number in sorted(images):
        lines = images.pop(number)
        found = assemble(lines.readouts, lines.encoding)
        if found.values.ndim == 4:
            raise InputError(f"{scan.name}: a 3D scan, expected 2D slices")
        problems = [*lines.problems, *found.problems]
        if len(found.values) != channels:
            problems.append(f"readouts of {len(found.values)} channels, expected {channels}")
        if problems:
            raise InputError(f"{scan.name}: slice {number}: {'; '.join(problems)}")
        slices.append(found.kspace())
    return slices


def zero_filled_kspace(scan: Readable) -> Complex:
    """K-space (slice, coil, y, x) of a 2D scan, zero where not measured; see `gridded`."""
    return np.stack([own.array for own in gridded(scan)])


def fully_sampled_kspace(path: PathLike, group: str = "dataset") -> Complex:
    """Read the k-space (slice, coil, y, x) of a fully sampled 2D scan: see `gridded`.

    Raises
    ------
    InputError
        Where a line between the encoding limits is missing, and as `gridded`.
    """
    with open_any(path, group) as scan:
        slices = gridded(scan)
        limits = encoding_limits(scan.header, STEPS[0])
        received = min(int(own.mask.any(axis=1).sum()) for own in slices)
        if received < limits.count:
            raise InputError(
                f"{scan.name}: not fully sampled: {received} of {limits.count} lines in a slice"
            )
        return np.stack([own.array for own in slices])
