"""ISMRMRD scans from arrays of k-space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_header_dtype

from scoremri_core.errors import InputError
from scoremri_core.scans.documents import undeclared
from scoremri_core.scans.flags import CALIBRATION_AND_IMAGING, LAST_IN_SLICE, flag_bits
from scoremri_core.scans.formats.centred import check_centred
from scoremri_core.scans.formats.geometry import Geometry

FIRST_IN_SLICE = flag_bits(ismrmrd.ACQ_FIRST_IN_SLICE)
LAST_IN_MEASUREMENT = flag_bits(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
MIN_CALIBRATION = 4  # contiguous lines around the centre; fewer occur by chance

Plane = Callable[[int, int, int], npt.NDArray[Any]]


@dataclass(frozen=True)
class ArrayScan:
    """Scan whose acquisitions are made of arrays as they are read, with the methods of `Scan`.

    Attributes
    ----------
    name : str
        Source, for messages.
    header : ismrmrdHeader
    """

    name: str
    header: xsd.ismrmrdHeader
    _heads: npt.NDArray[Any]
    _readout: Callable[[int], npt.NDArray[Any]]  # number of an acquisition to (coil, sample)

    @property
    def header_xml(self) -> str:
        """ISMRMRD header as text."""
        return undeclared(xsd.ToXML(self.header))

    def __len__(self) -> int:
        """Count the acquisitions."""
        return len(self._heads)

    def heads(self) -> npt.NDArray[Any]:
        """Return the headers of all acquisitions as a structured array."""
        return self._heads.copy()

    def waveforms(self) -> Iterator[ismrmrd.Waveform]:
        """Yield no waveforms, which these formats do not have."""
        yield from ()

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions."""
        for index, head in enumerate(self._heads):
            data = np.ascontiguousarray(self._readout(index), np.complex64)
            yield ismrmrd.Acquisition(head.tobytes(), data)


def scan_of(
    name: str,
    shape: tuple[int, ...],
    plane: Plane,
    geometry: Geometry,
    header: xsd.ismrmrdHeader | None = None,
) -> ArrayScan:
    """Make a scan of k-space in arrays.

    Lines that are zero in every coil are not sampled. In an undersampled scan, the contiguous lines
    around the centre are flagged as calibration, and the header has the acceleration of the others.

    Parameters
    ----------
    name : str
        For messages.
    shape : tuple of int
        (repetition, contrast, slice, coil, z, y, x), DC at index n // 2 of z, y and x.
    plane : callable
        Of repetition, contrast and slice; returns complex k-space (coil, z, y, x).
    geometry : Geometry
        Of the encoded space.
    header : ismrmrdHeader, optional
        Its first encoding is replaced. Default: made of `geometry`.

    Returns
    -------
    ArrayScan

    Raises
    ------
    InputError
        The arrays are empty, zero or not centred k-space (`check_centred`).
    """
    repetitions, contrasts, slices, coils, nz, ny, nx = shape
    if coils > 1024 or min(shape) < 1:
        raise InputError(f"{name}: {coils} coils, matrix {nx} x {ny} x {nz}: not k-space")
    cached = lru_cache(maxsize=1)(plane)
    frames = np.indices((repetitions, contrasts, slices)).reshape(3, -1).T
    acquired = np.array([np.any(cached(*frame) != 0, axis=(0, 3)) for frame in frames.tolist()])
    acquired = acquired.reshape(len(frames), nz, ny)
    if not acquired.any():
        raise InputError(f"{name}: all k-space is zero")
    check_centred(name, cached(*frames[acquired.any(axis=(1, 2)).argmax()].tolist()))
    in_any_frame = np.asarray(acquired.any(axis=0))
    calibration, factor = pattern(in_any_frame)

    frame, z, y = np.nonzero(acquired)
    heads = np.zeros(len(y), acquisition_header_dtype)
    heads["version"] = 1
    heads["scan_counter"] = np.arange(len(heads)) + 1
    heads["acquisition_time_stamp"] = np.arange(len(heads))
    heads["number_of_samples"], heads["center_sample"] = nx, nx // 2
    heads["available_channels"] = heads["active_channels"] = coils
    heads["channel_mask"] = _channel_mask(coils)
    heads["sample_time_us"] = geometry.sample_time_us
    for counter, values in zip(("repetition", "contrast", "slice"), frames.T, strict=True):
        heads["idx"][counter] = values[frame]
    heads["idx"]["kspace_encode_step_1"], heads["idx"]["kspace_encode_step_2"] = y, z
    heads["position"] = geometry.positions(slices)[frames[frame, 2]]
    heads["read_dir"] = geometry.read_dir
    heads["phase_dir"] = geometry.phase_dir
    heads["slice_dir"] = geometry.slice_dir
    heads["flags"][calibration[z, y]] |= np.uint64(CALIBRATION_AND_IMAGING)
    starts = np.flatnonzero(np.diff(frame, prepend=-1))
    heads["flags"][starts] |= np.uint64(FIRST_IN_SLICE)
    heads["flags"][np.append(starts[1:] - 1, len(frame) - 1)] |= np.uint64(LAST_IN_SLICE)
    heads["flags"][-1] |= np.uint64(LAST_IN_MEASUREMENT)

    header = header if header is not None else geometry.to_header(coils)
    header.encoding = [_encoding(shape, geometry, in_any_frame, factor)]

    def readout(index: int) -> npt.NDArray[Any]:
        idx = heads["idx"][index]
        counters = (int(idx[c]) for c in ("repetition", "contrast", "slice"))
        return cached(*counters)[:, z[index], y[index]]

    return ArrayScan(name, header, heads, readout)


def pattern(acquired: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
    """Find calibration lines and acceleration of a sampling pattern.

    Parameters
    ----------
    acquired : bool array, (z, y)

    Returns
    -------
    calibration : bool array, (z, y)
        Contiguous block around the centre; empty if all lines from the first to the last are
        acquired.
    factors : tuple of int
        Acceleration of y and z.
    """
    nz, ny = acquired.shape
    calibration = np.zeros_like(acquired)
    rows, columns = (np.asarray(acquired.any(axis=axis)) for axis in (1, 0))
    box = np.ix_(_span(rows), _span(columns))
    if acquired[box].all():
        return calibration, (1, 1)
    y_contiguous, along_z = _run(acquired[nz // 2], ny // 2), _run(acquired[:, ny // 2], nz // 2)
    block = acquired[along_z, y_contiguous]
    if block.size and block.all() and block.shape[1] >= MIN_CALIBRATION:
        calibration[along_z, y_contiguous] = True
    outside = ~calibration[box]
    factor = max(1, round(outside.sum() / max(1, (acquired[box] & outside).sum())))
    if nz == 1 or rows[_span(rows)].mean() == columns[_span(columns)].mean() == 1:
        return calibration, (factor, 1)
    # a lattice of whole lines or partitions
    z = max(1, round(len(_span(rows)) / rows.sum()))
    return calibration, (max(1, round(factor / z)), z)


def acceleration(y: int, z: int) -> xsd.accelerationFactorType:
    """Make the header element of the acceleration factors."""
    return xsd.accelerationFactorType(kspace_encoding_step_1=y, kspace_encoding_step_2=z)


def _span(acquired: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    indices = np.flatnonzero(acquired)
    return np.arange(indices[0], indices[-1] + 1)


def _run(acquired: npt.NDArray[np.bool_], center: int) -> slice:
    """Return the contiguous range around the centre; empty if the centre is not acquired."""
    gaps = np.flatnonzero(~acquired)
    start = int(gaps[gaps < center].max(initial=-1)) + 1
    stop = int(gaps[gaps >= center].min(initial=len(acquired)))
    return slice(start, max(start, stop)) if stop > center else slice(center, center)


def _channel_mask(coils: int) -> npt.NDArray[np.uint64]:
    bits = np.zeros(1024, np.uint8)
    bits[:coils] = 1
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def _encoding(
    shape: tuple[int, ...],
    geometry: Geometry,
    acquired: npt.NDArray[np.bool_],
    factor: tuple[int, int],
) -> Any:
    repetitions, contrasts, slices, _, nz, ny, nx = shape

    def space(matrix: tuple[int, int, int], fov: tuple[float, float, float]) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", matrix, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", fov, strict=True))),
        )

    def steps(lines: npt.NDArray[np.bool_]) -> Any:
        span = _span(lines)
        first, last = int(span[0]), int(span[-1])
        center = min(max(len(lines) // 2, first), last)
        return xsd.limitType(minimum=first, maximum=last, center=center)

    def counted(count: int) -> Any:
        return xsd.limitType(minimum=0, maximum=count - 1, center=0)

    recon = geometry.recon_matrix or (round(nx / geometry.oversampling), ny, nz)
    fov = geometry.field_of_view
    recon_fov = geometry.recon_field_of_view or (fov[0] / geometry.oversampling, *fov[1:])
    encoding = xsd.encodingType(
        encodedSpace=space((nx, ny, nz), fov),
        reconSpace=space(recon, recon_fov),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=steps(np.asarray(acquired.any(axis=0))),
            kspace_encoding_step_2=steps(np.asarray(acquired.any(axis=1))),
            slice=counted(slices),
            contrast=counted(contrasts),
            repetition=counted(repetitions),
            phase=counted(1),
            set=counted(1),
            average=counted(1),
            segment=counted(1),
        ),
        trajectory=xsd.trajectoryType.CARTESIAN,
    )
    if max(factor) > 1:
        encoding.parallelImaging = xsd.parallelImagingType(
            accelerationFactor=acceleration(*factor),
            calibrationMode=xsd.calibrationModeType.EMBEDDED,
        )
    return encoding
