"""Lines of a Cartesian scan on their matrix, for work outside a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import change_field_of_view, remove_oversampling
from scoremri_core.scans.files import PathLike, Readable
from scoremri_core.scans.flags import COUNTERS, REVERSE, STEPS, imaging_lines
from scoremri_core.scans.formats.opening import open_any


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


def with_field_of_view(
    kspace: npt.NDArray[np.complex64], points: int, axis: int
) -> npt.NDArray[np.complex64]:
    """Crop or pad the field of view of k-space (coil, ...) along an axis to `points` points.

    The change smears samples along the axis; where the nearest sample was not measured (zero in
    every coil) the result is zero, which is what says "not measured" downstream.
    """
    before = kspace.shape[axis]
    if before == points:
        return kspace
    measured = (kspace != 0).any(axis=0)
    nearest = np.rint((np.arange(points) - points // 2) * (before / points)).astype(int)
    nearest = np.clip(nearest + before // 2, 0, before - 1)
    kept = measured.take(nearest, axis=axis if axis < 0 else axis - 1)
    changed: npt.NDArray[np.complex64] = change_field_of_view(kspace, points, axis) * kept
    return changed


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


def zero_filled_kspace(scan: Readable) -> npt.NDArray[np.complex64]:
    """Place the lines of a 2D scan on their matrix, for work outside a stream.

    Lines of several averages are averaged; of several contrasts, phases, repetitions or sets the
    first is taken.

    Returns
    -------
    (slice, coil, y, x), zeros where nothing was measured; y is the encoded matrix with DC at
    ny//2, x has the readout oversampling removed

    Raises
    ------
    InputError
        Where readouts differ in their channels or lie outside the matrix, or the scan is 3D.
    """
    encoding = scan.header.encoding[0]
    size, fov = encoding.encodedSpace.matrixSize, encoding.encodedSpace.fieldOfView_mm
    ny, nx = int(size.y), int(size.x)
    if size.z > 1:
        raise InputError(f"{scan.name}: a 3D scan, expected 2D slices")
    heads = scan.heads()
    imaging = imaging_lines(heads)
    for counter in COUNTERS[1:]:
        imaging &= heads["idx"][counter] == heads["idx"][counter][imaging].min(initial=65535)
    if not imaging.any():
        raise InputError(f"{scan.name}: no imaging lines")
    channels = int(heads["active_channels"][imaging][0])
    y = heads["idx"][STEPS[0]].astype(int) - encoding_limits(scan.header, STEPS[0]).center + ny // 2
    slices = int(heads["idx"]["slice"][imaging].max()) + 1
    kspace = np.zeros((slices, channels, ny, nx), np.complex64)
    counts = np.zeros((slices, 1, ny, 1), np.float32)
    for index, acquisition in enumerate(scan):
        if not imaging[index]:
            continue
        start, data = along_readout(acquisition.getHead(), acquisition.data, nx)
        width = data.shape[1]
        fits = 0 <= y[index] < ny and start >= 0 and start + width <= nx
        if not fits or acquisition.active_channels != channels:
            raise InputError(
                f"{scan.name}: acquisition {index} has {acquisition.active_channels} channels of "
                f"{width} samples on line {y[index]}, which does not fit {channels} channels on "
                f"a matrix of {nx} x {ny}"
            )
        kspace[acquisition.idx.slice, :, y[index], start : start + width] += data
        counts[acquisition.idx.slice, 0, y[index]] += 1
    kspace /= np.maximum(counts, 1)
    nx_without_oversampling = round(nx * encoding.reconSpace.fieldOfView_mm.x / fov.x)
    return np.ascontiguousarray(remove_oversampling(kspace, nx_without_oversampling))


def fully_sampled_kspace(path: PathLike, group: str = "dataset") -> npt.NDArray[np.complex64]:
    """Read the k-space (slice, coil, y, x) of a fully sampled 2D scan: see `zero_filled_kspace`.

    Raises
    ------
    InputError
        Where a line between the encoding limits is missing, and as `zero_filled_kspace`.
    """
    with open_any(path, group) as scan:
        kspace = zero_filled_kspace(scan)
        limits = encoding_limits(scan.header, STEPS[0])
        received = int(np.any(kspace != 0, axis=(1, 3)).sum(axis=1).min())
        if received < limits.count:
            raise InputError(
                f"{scan.name}: not fully sampled: {received} of {limits.count} lines in a slice"
            )
        return kspace
