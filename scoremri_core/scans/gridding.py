"""Gridding of Cartesian readouts, for the stream and for files."""

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
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

MAX_VALUES = 1 << 31  # samples of the k-space of a frame, 16 GiB

Complex = npt.NDArray[np.complex64]
Counts = npt.NDArray[np.float32]


class Assembled(NamedTuple):
    """K-space of a frame on its grid.

    Attributes
    ----------
    values : complex64 array, (coil, y, x) or (coil, z, y, x)
        Centred, zero where not sampled, without readout oversampling.
    averages : float32 array, (y, x) or (z, y, x)
        Number of averages of each sample, 0 where not sampled.
    problems : list of str
        One message per kind of readout that is left out.
    """

    values: Complex
    averages: Counts
    problems: list[str]

    def kspace(self, noise_covariance: Any = None, calibration: KSpace | None = None) -> KSpace:
        """Make a KSpace.

        Parameters
        ----------
        noise_covariance : complex array, (coil, coil), optional
            Of one readout.
        calibration : KSpace, optional

        Returns
        -------
        KSpace
        """
        return KSpace.of(
            self.values,
            mask=self.averages > 0,
            averages=self.averages,
            calibration=calibration,
            noise_covariance=noise_covariance,
        )


def assemble(readouts: Sequence[Readout], encoding: Encoding) -> Assembled:
    """Grid the readouts of a frame.

    Readouts at the same position are averaged. Readouts outside of the matrix or with non-finite
    values are dropped with a warning; those with another number of channels than the majority are
    left out and are a problem of the frame.

    Parameters
    ----------
    readouts : sequence of Readout
    encoding : Encoding
        As measured, see `as_measured`.

    Returns
    -------
    Assembled

    Raises
    ------
    InputError
        The matrix with these coils is too large.
    """
    nx, ny, nz = encoding.matrix
    channels = Counter(len(readout.data) for readout in readouts).most_common(1)[0][0]
    if channels * nx * ny * nz > MAX_VALUES:
        raise InputError(
            f"{channels} channels and a matrix of {nx} x {ny} x {nz}: "
            f"expected at most {MAX_VALUES} samples in a frame"
        )
    partitions: dict[int, list[tuple[int, Readout]]] = defaultdict(list)
    problems: dict[str, None] = {}  # ordered, each kind once
    outside = nonfinite = 0
    for readout in readouts:
        idx = readout.header.idx
        y = idx.kspace_encode_step_1 - encoding.center[0] + ny // 2
        z = idx.kspace_encode_step_2 - encoding.center[1] + nz // 2 if nz > 1 else 0
        if len(readout.data) != channels:
            problems[f"a readout has {len(readout.data)} channels, expected {channels}"] = None
        elif not (0 <= y < ny and 0 <= z < nz):
            outside += 1
        elif not np.isfinite(readout.data).all():
            nonfinite += 1
        else:
            partitions[z].append((y, readout))
    if outside:
        logger.warning(
            "dropped %s outside of the encoded matrix of %d x %d x %d",
            counted(outside, "readout"), nx, ny, nz,
        )  # fmt: skip
    if nonfinite:
        logger.warning("dropped %s with non-finite values", counted(nonfinite, "readout"))
    steps = {readout.header.idx.kspace_encode_step_2 for readout in readouts}
    if nz == 1 and len(steps) > 1:
        problems[f"readouts of {len(steps)} partitions, the header has one"] = None
    if outside and not partitions:
        problems[f"all readouts are outside of the encoded matrix of {nx} x {ny} x {nz}"] = None
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
    """Average the readouts (y, readout) of a partition; return (coil, row, x) and their count."""
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
    """Crop or pad the field of view of k-space along an axis.

    This smears samples along the axis: a new sample has the averages of the nearest old one, and is
    zero if that one was not sampled.

    Parameters
    ----------
    kspace : complex64 array, (coil, ...)
    averages : float32 array, (...)
    points : int
        New size of the axis.
    axis : int
        Of `kspace`.

    Returns
    -------
    kspace, averages
    """
    size = kspace.shape[axis]
    if size == points:
        return kspace, averages
    averages = averages.take(_nearest(size, points), axis=axis if axis < 0 else axis - 1)
    changed: Complex = change_field_of_view(kspace, points, axis) * (averages > 0)
    return changed, averages


def _nearest(size: int, points: int) -> npt.NDArray[np.int_]:
    """Return the nearest of `size` samples for each of `points` samples of an axis."""
    nearest = np.rint((np.arange(points) - points // 2) * (size / points)).astype(int)
    return np.clip(nearest + size // 2, 0, size - 1)


def on_grid_of(assembled: Assembled, source: Encoding, target: Encoding) -> Assembled:
    """Resample k-space to the field of view and matrix of another encoding space.

    Parameters
    ----------
    assembled : Assembled
    source, target : Encoding
        Of `assembled` and of the result.

    Returns
    -------
    Assembled
    """
    kspace, averages, problems = assembled
    axes = zip(source.points, source.fov_of_points, target.fov_of_points, strict=True)
    for axis, (points, fov, new_fov) in enumerate(axes, start=1):
        if fov > 0 and new_fov > 0:
            size = max(1, round(points * new_fov / fov))
            kspace, averages = with_field_of_view(kspace, averages, size, axis)
    dimensions = kspace.ndim - 1
    return Assembled(
        resize(kspace, target.points, range(1, dimensions + 1)),
        resize(averages, target.points, range(dimensions)),
        problems,
    )


def gridded(scan: Readable) -> list[KSpace]:
    """Grid each slice of a 2D scan.

    Averages are averaged; of several contrasts, phases, repetitions or sets, the first is taken.
    Lines outside of the matrix are dropped with a warning, as in the stream.

    Parameters
    ----------
    scan : Readable

    Returns
    -------
    list of KSpace, (coil, y, x)
        By slice counter, which may have gaps. Centred on the encoded matrix, without readout
        oversampling.

    Raises
    ------
    InputError
        Readouts differ in their channels, all are outside of the matrix, or the scan is 3D.
    """
    encoding = encodings(scan.header)[0]
    encoding_limits(scan.header, STEPS[0])  # raises for invalid limits
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
    for selected, acquisition in zip(imaging, scan, strict=True):
        if selected:
            readout = Readout.of(acquisition)
            readouts[readout.header.idx.slice].append(readout)
    images: dict[int, ImageLines] = {}
    for of_slice in readouts.values():
        for lines in sort_readouts(of_slice, encoding):  # may separate slices or echoes
            images.setdefault(lines.readouts[0].header.idx.slice, lines)
    del readouts
    slices = []
    for number in sorted(images):
        lines = images.pop(number)
        assembled = assemble(lines.readouts, lines.encoding)
        if assembled.values.ndim == 4:
            raise InputError(f"{scan.name}: a 3D scan, expected 2D slices")
        problems = [*lines.problems, *assembled.problems]
        if len(assembled.values) != channels:
            problems.append(f"readouts of {len(assembled.values)} channels, expected {channels}")
        if problems:
            raise InputError(f"{scan.name}: slice {number}: {'; '.join(problems)}")
        slices.append(assembled.kspace())
    return slices


def zero_filled_kspace(scan: Readable) -> Complex:
    """Grid a 2D scan into zero-filled k-space.

    Parameters
    ----------
    scan : Readable

    Returns
    -------
    complex64 array, (slice, coil, y, x)
        As from `gridded`.

    Raises
    ------
    InputError
        As `gridded`.
    """
    return np.stack([kspace.array for kspace in gridded(scan)])


def fully_sampled_kspace(path: PathLike, group: str = "dataset") -> Complex:
    """Read the k-space of a fully sampled 2D scan.

    Parameters
    ----------
    path : path-like
        Raw data in any known format.
    group : str, optional
        Of an ISMRMRD file.

    Returns
    -------
    complex64 array, (slice, coil, y, x)
        As from `gridded`.

    Raises
    ------
    InputError
        A line within the encoding limits is missing, and as `gridded`.
    """
    with open_any(path, group) as scan:
        slices = gridded(scan)
        limits = encoding_limits(scan.header, STEPS[0])
        lines = min(int(kspace.mask.any(axis=1).sum()) for kspace in slices)
        if lines < limits.count:
            raise InputError(
                f"{scan.name}: not fully sampled: {lines} of {limits.count} lines in a slice"
            )
        return np.stack([kspace.array for kspace in slices])
