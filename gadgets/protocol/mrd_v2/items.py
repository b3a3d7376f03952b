"""Conversion of MRD version 2 items to and from version 1.

Supports mrd-python 2.1 (times in ticks and microseconds) and 2.2 (nanoseconds).
"""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np

from gadgets.protocol.gadgetron.wire import MAX_ITEM
from scoremri_core.errors import InputError
from scoremri_core.scans.flags import COUNTERS_AND_AVERAGE

# fields of a readout and of an image with equal names in both versions
ENCODING = ("kspace_encode_step_1", "kspace_encode_step_2", *COUNTERS_AND_AVERAGE, "segment")
READOUT = ("discard_pre", "discard_post", "center_sample", "encoding_space_ref", "scan_counter")
READOUT_GEOMETRY = ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position")
IMAGE_GEOMETRY = {
    "field_of_view": "field_of_view",
    "position": "position",
    "read_dir": "col_dir",
    "phase_dir": "line_dir",
    "slice_dir": "slice_dir",
    "patient_table_position": "patient_table_position",
}
NS_PER_MS = 1_000_000  # tick of version 1 in MRD's converters


def acquisition(readout: Any) -> ismrmrd.Acquisition:
    """Convert a readout to version 1.

    Parameters
    ----------
    readout : mrd.Acquisition

    Returns
    -------
    ismrmrd.Acquisition

    Raises
    ------
    InputError
        A value does not fit into version 1.
    """
    if getattr(readout, "phase", None) is not None:
        raise InputError("readout with an array of phases, which is not supported")
    head, out = readout.head, ismrmrd.AcquisitionHeader()
    channels, samples = readout.data.shape
    dimensions = readout.trajectory.shape[0] if readout.trajectory.size else 0
    if 8 * readout.data.size + 4 * readout.trajectory.size > MAX_ITEM:
        raise InputError(f"readout of more than {MAX_ITEM} bytes")
    out.version = 1
    out.flags = int(head.flags)
    out.measurement_uid = head.measurement_uid
    for name in READOUT:
        _set(out, name, getattr(head, name) or 0)
    for name in ENCODING:
        _set(out.idx, name, getattr(head.idx, name) or 0)
    for name in READOUT_GEOMETRY:
        getattr(out, name)[:] = getattr(head, name)
    for target, values in (
        (out.idx.user, head.idx.user),
        (out.user_int, head.user_int),
        (out.user_float, head.user_float),
        (out.physiology_time_stamp, _time(head, "physiology_time_stamp") or []),
    ):
        for i, value in enumerate(values[: len(target)]):
            target[i] = value
    out.acquisition_time_stamp = _time(head, "acquisition_time_stamp")
    out.sample_time_us = _sample_time(head)
    _set(out, "available_channels", channels)
    _set(out, "active_channels", channels)
    _set(out, "number_of_samples", samples)
    _set(out, "trajectory_dimensions", dimensions)
    path = readout.trajectory.T if dimensions else np.zeros((samples, 0))
    return ismrmrd.Acquisition(
        out,
        np.ascontiguousarray(readout.data, np.complex64),
        np.ascontiguousarray(path, np.float32),
    )


def waveform(recorded: Any) -> ismrmrd.Waveform:
    """Convert a waveform to version 1."""
    out = ismrmrd.WaveformHeader()
    out.version = 1
    for name in ("flags", "measurement_uid", "scan_counter", "waveform_id"):
        setattr(out, name, getattr(recorded, name))
    out.time_stamp = _time(recorded, "time_stamp")
    out.sample_time_us = _sample_time(recorded)
    out.channels, out.number_of_samples = recorded.data.shape
    return ismrmrd.Waveform(out, np.ascontiguousarray(recorded.data, np.uint32))


def image_v2(mrd: Any, image: ismrmrd.Image) -> Any:
    """Convert an image to an item of version 2, with its attributes as strings.

    Parameters
    ----------
    mrd : module
    image : ismrmrd.Image

    Returns
    -------
    mrd.StreamItem
    """
    kinds = {
        np.uint16: mrd.StreamItem.ImageUint16,
        np.int16: mrd.StreamItem.ImageInt16,
        np.uint32: mrd.StreamItem.ImageUint32,
        np.int32: mrd.StreamItem.ImageInt32,
        np.float32: mrd.StreamItem.ImageFloat,
        np.float64: mrd.StreamItem.ImageDouble,
        np.complex64: mrd.StreamItem.ImageComplexFloat,
        np.complex128: mrd.StreamItem.ImageComplexDouble,
    }
    head = image.getHead()
    out = mrd.ImageHeader(image_type=mrd.ImageType(head.image_type))
    out.flags = mrd.ImageFlags(head.flags)
    out.measurement_uid = head.measurement_uid
    for name in COUNTERS_AND_AVERAGE:
        setattr(out, name, getattr(head, name))
    for name, other in IMAGE_GEOMETRY.items():
        setattr(out, other, np.array(getattr(head, name), np.float32))
    _set_time(out, "acquisition_time_stamp", head.acquisition_time_stamp)
    _set_time(out, "physiology_time_stamp", list(head.physiology_time_stamp))
    out.image_index, out.image_series_index = head.image_index, head.image_series_index
    out.user_int, out.user_float = list(head.user_int), list(head.user_float)
    text = mrd.ImageMetaValue.String
    meta = {
        name: [text(str(item)) for item in (value if isinstance(value, list) else [value])]
        for name, value in image.meta.items()
    }
    return kinds[image.data.dtype.type](mrd.Image(head=out, data=image.data, meta=meta))


def waveform_v2(mrd: Any, waveform: ismrmrd.Waveform) -> Any:
    """Convert a waveform to an item of version 2."""
    head = waveform.getHead()
    out = mrd.WaveformUint32(data=np.ascontiguousarray(waveform.data, np.uint32))
    for name in ("flags", "measurement_uid", "scan_counter", "waveform_id"):
        setattr(out, name, getattr(head, name))
    _set_time(out, "time_stamp", head.time_stamp)
    if hasattr(out, "sample_time_ns"):
        out.sample_time_ns = round(1000 * head.sample_time_us)
    else:
        out.sample_time_us = head.sample_time_us
    return mrd.StreamItem.WaveformUint32(out)


def _set(head: Any, name: str, value: int) -> None:
    setattr(head, name, value)
    if getattr(head, name) != value:  # ctypes truncates silently
        raise InputError(f"readout with {name} {value}, which does not fit into MRD v1")


def _time(item: Any, name: str) -> Any:
    """Return a time in ticks."""
    if hasattr(item, name):
        return getattr(item, name) or 0
    value = getattr(item, f"{name}_ns") or 0
    return [time // NS_PER_MS for time in value] if isinstance(value, list) else value // NS_PER_MS


def _set_time(item: Any, name: str, value: Any) -> None:
    if hasattr(item, name):
        setattr(item, name, value)
    elif isinstance(value, list):
        setattr(item, f"{name}_ns", [NS_PER_MS * time for time in value])
    else:
        setattr(item, f"{name}_ns", NS_PER_MS * value)


def _sample_time(item: Any) -> float:
    if hasattr(item, "sample_time_us"):
        return item.sample_time_us or 0.0
    return (item.sample_time_ns or 0) / 1000
