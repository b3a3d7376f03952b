"""Streams of MRD version 2 through standard input and output."""

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

MAGIC = b"yardl"  # begins every stream of version 2


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
        """See `Format`."""
        if isinstance(item, ismrmrd.Image):
            converted = image_v2(self._mrd, item)
        elif isinstance(item, ismrmrd.Waveform):
            converted = waveform_v2(self._mrd, item)
        else:
            raise InputError(f"a {type(item).__name__} cannot be sent as MRD v2")
        # a list of one: of a generator, mrd's writer does not see that its buffer is full
        self._writer.write_data([converted])

    def close(self) -> None:
        """See `Format`."""
        self._writer.close()


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
