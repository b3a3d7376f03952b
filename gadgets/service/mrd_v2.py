"""MRD version 2: its streams and types, to and from those of version 1, which the chains speak."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import types
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import ismrmrd
import numpy as np
from ismrmrd import xsd
from xsdata.models.datatype import XmlDate, XmlTime

from gadgets.protocol.wire import MAX_ITEM
from gadgets.service.pipe import INPUT, Pipe
from scoremri_core.errors import InputError
from scoremri_core.scans.documents import undeclared

MAGIC = b"yardl"  # begins every stream of version 2
# of a readout and of an image, by the same name in both versions
COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set")
ENCODING = ("kspace_encode_step_1", "kspace_encode_step_2", *COUNTERS, "segment")
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
NS_PER_MS = 1_000_000  # a tick of version 1's clocks, as MRD's own converters have it


class Version2:
    """A stream of version 2, in and out.

    Parameters
    ----------
    pipe : of which nothing has been read.

    Raises
    ------
    InputError
        Where mrd-python is missing, or reads another edition of version 2.
    """

    def __init__(self, pipe: Pipe) -> None:
        try:
            import mrd
        except ImportError as error:
            raise InputError(
                f"{INPUT} is an MRD v2 stream, which needs the package mrd-python: "
                "pip install 'scoremri[mrd]'"
            ) from error
        self._mrd = mrd
        self._writer = mrd.BinaryMrdWriter(_Sink(pipe))
        with _reading():
            self._reader = mrd.BinaryMrdReader(_Source(pipe))

    def header(self) -> str:
        """See `Format`.

        Raises
        ------
        InputError
            Where there is none, or it cannot be read.
        """
        with _reading():
            header = self._reader.read_header()
        if header is None:
            raise InputError(f"{INPUT}: the MRD v2 stream has no header")
        with _reading():
            text = header_xml(header)
        self._writer.write_header(header)
        return text

    def items(self) -> Iterator[Any]:
        """See `Format`.

        Raises
        ------
        InputError
            Where the stream ends early, is damaged, or holds more than acquisitions and waveforms.
        """
        kinds = self._mrd.StreamItem
        with _reading():
            for item in self._reader.read_data():
                if isinstance(item, kinds.Acquisition):
                    yield acquisition(item.value)
                elif isinstance(item, kinds.WaveformUint32):
                    yield waveform(item.value)
                else:
                    raise InputError(
                        f"{INPUT}: an item of type {item.tag} came, which no chain here takes: "
                        "expected Acquisition and WaveformUint32"
                    )

    def write(self, item: Any) -> None:
        """See `Format`; one item at a time, so that whoever reads need not wait for the next."""
        mrd = self._mrd
        if isinstance(item, ismrmrd.Image):
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
            image = mrd.Image(head=self._image_head(item), data=item.data, meta=self._meta(item))
            self._writer.write_data([kinds[item.data.dtype.type](image)])
        elif isinstance(item, ismrmrd.Waveform):
            self._writer.write_data([mrd.StreamItem.WaveformUint32(self._waveform(item))])
        else:
            raise InputError(f"a {type(item).__name__} cannot be sent as MRD v2")

    def close(self) -> None:
        """See `Format`."""
        self._writer.write_data([])  # the end of the data, even where there were none
        self._writer.close()

    def _image_head(self, image: ismrmrd.Image) -> Any:
        head, mrd = image.getHead(), self._mrd
        out = mrd.ImageHeader(image_type=mrd.ImageType(head.image_type))
        out.flags = mrd.ImageFlags(head.flags)
        out.measurement_uid = head.measurement_uid
        for name in COUNTERS:
            setattr(out, name, getattr(head, name))
        for name, other in IMAGE_GEOMETRY.items():
            setattr(out, other, np.array(getattr(head, name), np.float32))
        _set_time(out, "acquisition_time_stamp", head.acquisition_time_stamp)
        _set_time(out, "physiology_time_stamp", list(head.physiology_time_stamp))
        out.image_index, out.image_series_index = head.image_index, head.image_series_index
        out.user_int, out.user_float = list(head.user_int), list(head.user_float)
        return out

    def _meta(self, image: ismrmrd.Image) -> dict[str, list[Any]]:
        """Attributes, as the texts that they are in version 1."""
        text = self._mrd.ImageMetaValue.String
        return {
            name: [text(str(each)) for each in (value if isinstance(value, list) else [value])]
            for name, value in image.meta.items()
        }

    def _waveform(self, waveform: ismrmrd.Waveform) -> Any:
        head = waveform.getHead()
        out = self._mrd.WaveformUint32(data=np.ascontiguousarray(waveform.data, np.uint32))
        for name in ("flags", "measurement_uid", "scan_counter", "waveform_id"):
            setattr(out, name, getattr(head, name))
        _set_time(out, "time_stamp", head.time_stamp)
        if hasattr(out, "sample_time_ns"):
            out.sample_time_ns = round(1000 * head.sample_time_us)
        else:
            out.sample_time_us = head.sample_time_us
        return out


def header_xml(header: Any) -> str:
    """A header of version 2 as the XML of version 1.

    The fields of both have the same names but for capitals and underscores.
    """
    converted = _converted(xsd.ismrmrdHeader, header)
    converted.version = None  # of another schema
    return undeclared(xsd.ToXML(converted))


def acquisition(readout: Any) -> ismrmrd.Acquisition:
    """A readout of version 1."""
    head, out = readout.head, ismrmrd.AcquisitionHeader()
    channels, samples = readout.data.shape
    dimensions = readout.trajectory.shape[0] if readout.trajectory.size else 0
    if 8 * readout.data.size + 4 * readout.trajectory.size > MAX_ITEM:
        raise InputError(f"{INPUT}: a readout of more than {MAX_ITEM} bytes")
    out.version = 1
    out.flags = int(head.flags)
    out.measurement_uid = head.measurement_uid
    for name in READOUT:
        setattr(out, name, getattr(head, name) or 0)
    for name in ENCODING:
        setattr(out.idx, name, getattr(head.idx, name) or 0)
    for name in READOUT_GEOMETRY:
        getattr(out, name)[:] = getattr(head, name)
    for target, values in (
        (out.idx.user, head.idx.user),
        (out.user_int, head.user_int),
        (out.user_float, head.user_float),
        (out.physiology_time_stamp, _time(head, "physiology_time_stamp")),
    ):
        for i, value in enumerate(values[: len(target)]):
            target[i] = value
    out.acquisition_time_stamp = _time(head, "acquisition_time_stamp")
    out.sample_time_us = _sample_time(head)
    out.available_channels = out.active_channels = channels
    out.number_of_samples, out.trajectory_dimensions = samples, dimensions
    path = readout.trajectory.T if dimensions else np.zeros((samples, 0))
    return ismrmrd.Acquisition(
        out,
        np.ascontiguousarray(readout.data, np.complex64),
        np.ascontiguousarray(path, np.float32),
    )


def waveform(recorded: Any) -> ismrmrd.Waveform:
    """A waveform of version 1."""
    out = ismrmrd.WaveformHeader()
    out.version = 1
    for name in ("flags", "measurement_uid", "scan_counter", "waveform_id"):
        setattr(out, name, getattr(recorded, name))
    out.time_stamp = _time(recorded, "time_stamp")
    out.sample_time_us = _sample_time(recorded)
    out.channels, out.number_of_samples = recorded.data.shape
    return ismrmrd.Waveform(out, np.ascontiguousarray(recorded.data, np.uint32))


class _Source(io.RawIOBase):
    """What mrd reads from."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._pipe.recv(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class _Sink:
    """What mrd writes to."""

    def __init__(self, pipe: Pipe) -> None:
        self.write = pipe.sendall

    def flush(self) -> None:
        """Nothing waits here."""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tells what mrd's reader raises, in one sentence: InputError."""
    try:
        yield
    except InputError:
        raise
    except (EOFError, BufferError) as error:  # the latter where the end cuts a value in two
        raise InputError(
            f"{INPUT} ended before the scan did: the MRD v2 stream has no end"
        ) from error
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{INPUT}: an MRD v2 stream that is damaged, or of another edition than this "
            f"mrd-python reads ({told})"
        ) from error


def _time(item: Any, name: str) -> Any:
    """Ticks, of editions that count ticks and of those that count nanoseconds."""
    value = getattr(item, name, None)
    if not hasattr(item, name):
        value = getattr(item, f"{name}_ns")
        if isinstance(value, list):
            return [each // NS_PER_MS for each in value]
        return (value or 0) // NS_PER_MS
    return 0 if value is None else value


def _set_time(item: Any, name: str, value: Any) -> None:
    if hasattr(item, name):
        setattr(item, name, value)
    elif isinstance(value, list):
        setattr(item, f"{name}_ns", [NS_PER_MS * each for each in value])
    else:
        setattr(item, f"{name}_ns", NS_PER_MS * value)


def _sample_time(item: Any) -> float:
    if hasattr(item, "sample_time_us"):
        return item.sample_time_us or 0.0
    return (item.sample_time_ns or 0) / 1000


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _converted(kind: Any, value: Any) -> Any:
    """A value of mrd as the type that xsd has for it."""
    if value is None:
        return None
    inner = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is list:
        return [_converted(inner[0], each) for each in value]
    if get_origin(kind) in (Union, types.UnionType):
        return _converted(inner[0], value)
    if dataclasses.is_dataclass(kind):
        names = {_plain(name): name for name in vars(value)}
        hints = get_type_hints(kind)
        items = {
            field.name: _converted(hints[field.name], getattr(value, names[plain]))
            for field in dataclasses.fields(kind)
            if (plain := _plain(field.name)) in names
        }
        return kind(**items)  # type: ignore[operator]
    if isinstance(value, Enum):
        if kind is str:
            return value.name
        # version 1 has no word for "no acceleration": it leaves the element out
        return next((each for each in kind if _plain(each.name) == _plain(value.name)), None)
    return _CONVERTERS[kind](value)


def _number(value: float) -> float:
    """With the digits that its text had: .8 is not .800000011920929, though it came in 32 bits."""
    single = np.float32(value)
    return float(str(single)) if single == value else float(value)


def _clock(value: Any) -> XmlTime:
    seconds, nanoseconds = divmod(value.numpy_value.astype(int), 10**9)
    minutes, second = divmod(int(seconds), 60)
    return XmlTime(minutes // 60, minutes % 60, second, int(nanoseconds))


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    str: str,
    int: int,
    float: _number,
    bytes: lambda text: text.encode(),
    XmlDate: XmlDate.from_date,
    XmlTime: _clock,
}
