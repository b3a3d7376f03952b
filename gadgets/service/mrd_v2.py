"""MRD version 2 on standard input and output."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import ismrmrd

from gadgets.protocol.mrd_v2.header import header_xml
from gadgets.protocol.mrd_v2.items import acquisition, image_v2, waveform, waveform_v2
from gadgets.service.pipe import INPUT, Pipe
from scoremri_core.errors import InputError

MAGIC = b"yardl"  # start of a stream of version 2


class Version2:
    """Reader and writer of MRD version 2.

    Parameters
    ----------
    pipe : Pipe
        Pipe at the start of the stream.

    Raises
    ------
    InputError
        mrd-python is not installed, or does not support the schema of the stream.
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
            The header is missing or invalid.
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
            The stream ends early, is damaged, or has other items than acquisitions and waveforms.
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
                        f"{INPUT}: unsupported item of type {item.tag}: expected Acquisition or "
                        "WaveformUint32"
                    )

    def write(self, item: Any) -> None:
        """See `Format`."""
        if isinstance(item, ismrmrd.Image):
            converted = image_v2(self._mrd, item)
        elif isinstance(item, ismrmrd.Waveform):
            converted = waveform_v2(self._mrd, item)
        else:
            raise InputError(f"cannot write a {type(item).__name__} as MRD v2")
        # a list, since mrd does not flush its buffer for generators
        self._writer.write_data([converted])

    def close(self) -> None:
        """See `Format`."""
        self._writer.close()


class _Source(io.RawIOBase):
    """Readable stream for mrd."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._pipe.recv(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class _Sink:
    """Writable stream for mrd."""

    def __init__(self, pipe: Pipe) -> None:
        self.write = pipe.sendall

    def flush(self) -> None:
        """Do nothing: there is no buffer."""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Convert the exceptions of mrd's reader to InputError."""
    try:
        yield
    except InputError:
        raise
    except (EOFError, BufferError) as error:  # BufferError: within a value
        raise InputError(
            f"{INPUT} ended before the scan did: the MRD v2 stream has no end"
        ) from error
    except Exception as error:
        raise InputError(
            f"{INPUT}: MRD v2 stream damaged or not supported by this mrd-python "
            f"({type(error).__name__}: {error})"
        ) from error
