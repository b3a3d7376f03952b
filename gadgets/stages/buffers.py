"""Gadgetron's ReconData buffers to frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

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

from gadgets.stages.accumulate import FrameSorter
from gadgets.stages.noise_scan import Whitened
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
HEADER_AXES = (1, 2, 4, 5, 6)  # of the data [E0, E1, E2, CHA, N, S, LOC], those with a header each


def frames_of_buffers(items: Iterable[Any], header: Any, properties: Properties) -> Iterator[Any]:
    """Frames of the buffers in a stream; anything else in the stream passes on.

    The lines are placed by their headers, so that a buffer that starts at its first reference
    line is understood as well as one on the encoded matrix.  Oversampling is taken to be removed,
    and what RemoveROOversamplingGadget displaces is moved back.  With `noise` at "scan" the data
    are taken to be whitened by Gadgetron, unless they contradict; otherwise the noise is estimated.

    Parameters
    ----------
    items : ReconData, and whatever else the stream holds.
    header : the ISMRMRD header.
    properties : of the node.
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
        yield from sorter.finish()  # not before: a reference scan may come after repetitions


class BufferSorter(FrameSorter):
    """Sorts the lines of buffers, of which the first one shows whether oversampling is gone."""

    def __init__(self, buffer: ReconBuffer, header: Any, properties: Properties) -> None:
        """Start a stream."""
        used = [head for head in buffer.headers.ravel() if head.number_of_samples]
        spaces = encodings(header)
        number = min(used[0].encoding_space_ref, len(spaces) - 1) if used else 0
        oversampled = buffer.data.shape[0] > spaces[number].readout_points
        super().__init__(header, properties, oversampled)
        if used and not oversampled:  # of a fraction, the gadget rounds down
            points = used[0].number_of_samples
            self.encodings[number] = spaces[number].without_oversampling(points)
        if properties.noise == "scan":
            self.noise = Whitened(header, properties)
        self._cropped = not oversampled and _is_cropped(spaces[0])

    def moved_back(self, line: np.ndarray, head: Any, points: int) -> np.ndarray:
        """A line (coil, sample), its object moved back to where it was.

        RemoveROOversamplingGadget starts to crop n even points to m at (n - m) / 2 rounded down,
        which leaves the origin of an odd m at m // 2 + 1.

        Parameters
        ----------
        head : says which sample is DC.
        points : m, of a whole readout.
        """
        if not self._cropped or points % 2 == 0:
            return line
        k = np.arange(line.shape[1]) - head.center_sample
        moved: np.ndarray = (line * np.exp(2j * np.pi * k / points)).astype(np.complex64)
        return moved


def _is_cropped(space: Encoding) -> bool:
    """Whether RemoveROOversamplingGadget, which goes by the first encoding space, crops."""
    encoded, wanted = (space.matrix[0], space.fov[0]), (space.recon_matrix[0], space.recon_fov[0])
    return encoded != wanted and space.matrix[0] % 2 == 0


def _frames(bit: ReconBit, sorter: BufferSorter) -> Iterator[Any]:
    if bit.ref is not None:
        for readout in _readouts(bit.ref, sorter):
            head = readout.header
            head.flags &= ~LAST
            separate = sorter.encodings[0].calibration_mode != "embedded"
            if separate or head.flags & CALIBRATION_AND_IMAGING:
                # Lines that serve both uses come a second time, among the data.
                head.flags &= ~CALIBRATION_AND_IMAGING
                head.flags |= CALIBRATION
                yield from sorter.add_reference(readout)
            else:
                yield from sorter.add(readout)
    for readout in _readouts(bit.data, sorter):
        readout.header.flags &= ~(
            CALIBRATION_AND_IMAGING | CALIBRATION | LAST
        )  # a buffer is complete as it ends
        yield from sorter.add(readout)
    yield from sorter.complete()


def _readouts(buffer: ReconBuffer, sorter: BufferSorter) -> Iterator[Readout]:
    """The lines of a buffer that were filled, each with its header.

    A line of fewer channels than the buffer has was filled up with what lay behind it in memory.
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
        head = _placed(head, buffer.sampling, line.shape[1], measured)
        yield Readout(head, sorter.moved_back(line[:channels], head, points))


def _placed(head: Any, sampling: Any, samples: int, measured: np.ndarray) -> Any:
    """Give a header the sample of DC and the filled range that the line has in its buffer.

    The limits are those of the readout.  A buffer on the encoded matrix holds all of it, another
    one only what was acquired of a partial echo.
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
    """Read ReconData as Gadgetron writes it, within bounds.

    gadgetron-python's own reader fails on a buffer without axes, which is what a reference scan
    without imaging data comes with.
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
        raise InputError(f"ReconData announces an array of shape {shape}: too large")
    return shape if shape else (0,)


def _length(source: Any, limit: int) -> int:
    (length,) = uint64.unpack(source.read(uint64.size))
    if length > limit:
        raise InputError(f"ReconData announces {length} parts: at most {limit}")
    return int(length)


def _present(source: Any) -> bool:
    return bool(optional_flag.unpack(source.read(optional_flag.size))[0])
