"""ReconData buffers of Gadgetron to frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.external.constants import bool as optional_flag
from gadgetron.external.constants import uint64
from gadgetron.external.readers import read_acquisition_header
from gadgetron.types.recon_data import (
    ReconBit,
    ReconBuffer,
    ReconData,
    read_sampling_description,
)
from ismrmrd.xsd import ismrmrdHeader

from gadgets.stages.accumulate import FrameSorter
from gadgets.stages.noise_scan import WhitenedNoise
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.encoding import Encoding, Readout, encodings
from scoremri_core.scans.flags import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    LAST_IN_SLICE,
    LAST_OF_ALL,
    NO_IMAGE,
)

MAX_AXES = 16
MAX_ELEMENTS = 1 << 32
MAX_HEADERS = 1 << 22
LAST = LAST_IN_SLICE | LAST_OF_ALL
HEADER_AXES = (1, 2, 4, 5, 6)  # of the data [E0, E1, E2, CHA, N, S, LOC]


def frames_of_buffers(
    items: Iterable[Any], header: ismrmrdHeader, properties: Properties
) -> Iterator[Any]:
    """Sort the lines of ReconData buffers into frames; other items pass.

    Lines are placed by their headers, wherever the buffer starts. Readout oversampling may be
    removed; the shift of RemoveROOversamplingGadget is corrected. With noise=scan, data are
    expected to be whitened by Gadgetron unless their noise contradicts it; otherwise the noise is
    estimated.

    Parameters
    ----------
    items : iterable
        ReconData and other items of the stream.
    header : ismrmrdHeader
        Of the scan.
    properties : Properties
        Of the node.

    Yields
    ------
    Frame or item that passes
    """
    sorter: BufferSorter | None = None
    for item in items:
        if not isinstance(item, ReconData):
            yield item
            continue
        for bit in item.bits:
            for buffer in (bit.data, bit.ref):
                if sorter is None and buffer is not None and buffer.data.size:
                    sorter = BufferSorter(buffer, header, properties)
            if sorter is None:
                continue
            yield from _frames(bit, sorter)
    if sorter is not None:
        yield from sorter.finish()  # not earlier: a reference scan may follow the repetitions


class BufferSorter(FrameSorter):
    """Sort the lines of buffers into frames.

    Parameters
    ----------
    buffer : ReconBuffer
        The first one, which shows whether readout oversampling is removed.
    header : ismrmrdHeader
        Of the scan.
    properties : Properties
        Of the node.
    """

    def __init__(self, buffer: ReconBuffer, header: ismrmrdHeader, properties: Properties) -> None:
        used = [head for head in buffer.headers.ravel() if head.number_of_samples]
        spaces = encodings(header)
        number = min(used[0].encoding_space_ref, len(spaces) - 1) if used else 0
        oversampled = buffer.data.shape[0] > spaces[number].readout_points
        super().__init__(header, properties, oversampled)
        if used and not oversampled:  # the gadget rounds a fraction down
            points = used[0].number_of_samples
            self.encodings[number] = spaces[number].without_oversampling(points)
        if properties.noise == "scan":
            self.noise = WhitenedNoise(header, properties)
        self._cropped = not oversampled and _is_cropped(spaces[0])

    def undo_shift(
        self, line: np.ndarray, head: ismrmrd.AcquisitionHeader, points: int
    ) -> np.ndarray:
        """Undo the shift of the object by RemoveROOversamplingGadget.

        It crops n points (even) to m from (n - m) / 2 rounded down, which leaves the origin of an
        odd m at m // 2 + 1.

        Parameters
        ----------
        line : complex64 array, (coil, sample)
        head : ismrmrd.AcquisitionHeader
            Its `center_sample` is DC.
        points : int
            m, samples of a full readout.

        Returns
        -------
        complex64 array, (coil, sample)
        """
        if not self._cropped or points % 2 == 0:
            return line
        k = np.arange(line.shape[1]) - head.center_sample
        shifted: np.ndarray = (line * np.exp(2j * np.pi * k / points)).astype(np.complex64)
        return shifted


def _is_cropped(space: Encoding) -> bool:
    """Whether RemoveROOversamplingGadget, which uses the first encoding space, crops."""
    encoded, wanted = (space.matrix[0], space.fov[0]), (space.recon_matrix[0], space.recon_fov[0])
    return encoded != wanted and space.matrix[0] % 2 == 0


def _frames(bit: ReconBit, sorter: BufferSorter) -> Iterator[Any]:
    if bit.ref is not None:
        for readout in _readouts(bit.ref, sorter):
            head = readout.header
            head.flags &= ~LAST
            separate = sorter.encodings[0].calibration_mode != "embedded"
            if separate or head.flags & CALIBRATION_AND_IMAGING:
                # Lines of both uses are repeated among the data.
                head.flags &= ~CALIBRATION_AND_IMAGING
                head.flags |= CALIBRATION
                yield from sorter.add_reference(readout)
            else:
                yield from sorter.add(readout)
    for readout in _readouts(bit.data, sorter):
        # the end of the buffer completes its frames
        readout.header.flags &= ~(CALIBRATION_AND_IMAGING | CALIBRATION | LAST)
        yield from sorter.add(readout)
    yield from sorter.complete()


def _readouts(buffer: ReconBuffer, sorter: BufferSorter) -> Iterator[Readout]:
    """Yield the acquired lines of a buffer with their headers.

    Gadgetron pads a line with fewer channels than the buffer with arbitrary memory; it is cut.
    """
    data, headers = buffer.data, buffer.headers
    if data.size == 0:
        return
    if data.ndim != 7 or headers.shape != tuple(data.shape[axis] for axis in HEADER_AXES):
        raise InputError(
            f"ReconData has data of shape {data.shape} and headers of shape {headers.shape}: "
            "expected [E0, E1, E2, CHA, N, S, LOC] and [E1, E2, N, S, LOC]"
        )
    for e1, e2, n, s, loc in np.ndindex(*headers.shape):
        line = data[:, e1, e2, :, n, s, loc].T
        head = type(headers[e1, e2, n, s, loc]).from_buffer_copy(headers[e1, e2, n, s, loc])
        measured = np.flatnonzero((line != 0).any(axis=0))
        if not head.number_of_samples or head.flags & NO_IMAGE or not measured.size:
            continue
        channels = min(head.active_channels or len(line), len(line))
        points = head.number_of_samples
        head = _on_buffer(head, buffer.sampling, line.shape[1], measured)
        yield Readout(head, sorter.undo_shift(line[:channels], head, points))


def _on_buffer(
    head: ismrmrd.AcquisitionHeader, sampling: Any, samples: int, measured: np.ndarray
) -> ismrmrd.AcquisitionHeader:
    """Set DC and the acquired range of a header to those of the line in its buffer.

    A buffer on the encoded matrix holds the full readout, others only the acquired part of a
    partial echo.
    """
    limits = sampling.sampling_limits[0]
    cropped = samples == limits.max - limits.min + 1
    center = limits.center - (limits.min if cropped else 0)
    head.number_of_samples = samples
    head.center_sample = center if 0 < center < samples else samples // 2
    head.discard_pre = int(measured[0])
    head.discard_post = samples - 1 - int(measured[-1])
    return head


def read_recon_data(source: Any) -> ReconData:
    """Read ReconData as Gadgetron writes it, with bounded sizes.

    The reader of gadgetron-python fails on a buffer without axes, which is the imaging data of a
    pure reference scan.

    Parameters
    ----------
    source : object with `read(bytes)`

    Returns
    -------
    ReconData

    Raises
    ------
    InputError
        A size exceeds its bound.
    """
    count = _length(source, 1 << 16)
    return ReconData([_read_bit(source) for _ in range(count)])


def _read_bit(source: Any) -> ReconBit:
    data = _read_buffer(source)
    return ReconBit(data, _read_buffer(source) if _present(source) else None)


def _read_buffer(source: Any) -> ReconBuffer:
    data = _read_array(source, np.complex64)
    trajectory = _read_array(source, np.float32) if _present(source) else None
    density = _read_array(source, np.float32) if _present(source) else None
    shape = _read_shape(source, MAX_HEADERS)
    headers = np.empty(math.prod(shape), dtype=object)
    for i in range(headers.size):
        headers[i] = read_acquisition_header(source)
    sampling = read_sampling_description(source)
    return ReconBuffer(data, trajectory, density, headers.reshape(shape, order="F"), sampling)


def _read_array(source: Any, dtype: Any) -> np.ndarray:
    shape = _read_shape(source)
    raw = source.read(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype).reshape(shape, order="F")


def _read_shape(source: Any, limit: int = MAX_ELEMENTS) -> tuple[int, ...]:
    axes = _length(source, MAX_AXES)
    shape = tuple(np.frombuffer(source.read(8 * axes), "<u8").tolist())
    if math.prod(shape) > limit:
        raise InputError(
            f"ReconData with an array of shape {shape}: expected at most {limit} elements"
        )
    return shape if shape else (0,)


def _length(source: Any, limit: int) -> int:
    (length,) = uint64.unpack(source.read(uint64.size))
    if length > limit:
        raise InputError(f"ReconData with a count of {length}: expected at most {limit}")
    return int(length)


def _present(source: Any) -> bool:
    return bool(optional_flag.unpack(source.read(optional_flag.size))[0])
