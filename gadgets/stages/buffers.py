"""Gadgetron's ReconData buffers to frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
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
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError
from scoremri_core.scans.encoding import Readout, encodings
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
    line is understood as well as one on the encoded matrix.  Oversampling is taken to be removed
    and, with `noise` at "scan", the data to be whitened by Gadgetron (each real component with
    standard deviation 1); otherwise the noise is estimated.

    Parameters
    ----------
    items : ReconData, and whatever else the stream holds.
    header : the ISMRMRD header.
    properties : of the node.
    """
    sorter: FrameSorter | None = None
    for item in items:
        if not isinstance(item, ReconData):
            yield item
            continue
        for bit in item.bits:
            for buffer in (bit.data, bit.ref):
                if sorter is None and buffer is not None and buffer.data.size:
                    sorter = _sorter(buffer, header, properties)
            if sorter is None:
                continue
            yield from _frames(bit, sorter)
    if sorter is not None:
        yield from sorter.finish()  # not before: a reference scan may come after repetitions


def _sorter(buffer: ReconBuffer, header: Any, properties: Properties) -> FrameSorter:
    if properties.noise == "scan":
        properties = replace(properties, noise=1.0)
    used = [head.encoding_space_ref for head in buffer.headers.ravel() if head.number_of_samples]
    spaces = encodings(header)
    space = spaces[min(used[0], len(spaces) - 1)] if used else spaces[0]
    return FrameSorter(header, properties, buffer.data.shape[0] > space.readout_points)


def _frames(bit: ReconBit, sorter: FrameSorter) -> Iterator[Any]:
    if bit.ref is not None:
        for readout in _readouts(bit.ref):
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
    for readout in _readouts(bit.data):
        readout.header.flags &= ~(
            CALIBRATION_AND_IMAGING | CALIBRATION | LAST
        )  # a buffer is complete as it ends
        yield from sorter.add(readout)
    yield from sorter.complete()


def _readouts(buffer: ReconBuffer) -> Iterator[Readout]:
    """The lines of a buffer that were filled, each with its header."""
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
        yield Readout(_placed(head, buffer.sampling, line.shape[1], measured), line)


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
