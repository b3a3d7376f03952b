"""ISMRMRD files: read lazily, written whole or not at all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import h5py
import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd import xsd
from ismrmrd.file import Acquisitions, Waveforms
from ismrmrd.hdf5 import acquisition_header_dtype

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike, check_readable, replacing
from scoremri_core.scans.documents import decoded, undeclared
from scoremri_core.scans.header import parse_header

logger = logging.getLogger(__name__)

BLOCK = 64  # readouts held at a time: variable-length rows are slow to read one by one
RESERVE = 1 << 20  # bytes that HDF5 may write on top of the data


@dataclass(frozen=True)
class Scan:
    """An open ISMRMRD scan; iterating reads its acquisitions block by block.

    Attributes
    ----------
    name : path and group, for messages
    header : the parsed ISMRMRD header
    header_xml : the header as stored, in no encoding any more
    """

    name: str
    header: Any
    header_xml: str
    _group: h5py.Group

    def __len__(self) -> int:
        """Count the acquisitions."""
        return int(self._group["data"].shape[0])

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Read the acquisitions in the order of the file."""
        rows = self._group["data"]
        for start in range(0, len(self), BLOCK):
            for offset, row in enumerate(rows[start : start + BLOCK]):
                yield self._acquisition(start + offset, row)

    def heads(self) -> npt.NDArray[Any]:
        """Headers of all acquisitions as one structured array, without their data."""
        heads: npt.NDArray[Any] = self._group["data"].fields("head")[:]
        return heads.astype(acquisition_header_dtype)

    def waveforms(self) -> Iterator[ismrmrd.Waveform]:
        """Physiology recorded beside the scan, if any."""
        if "waveforms" in self._group:
            yield from Waveforms(self._group["waveforms"])

    def _acquisition(self, index: int, row: Any) -> ismrmrd.Acquisition:
        head = np.asarray(row["head"]).astype(acquisition_header_dtype)
        channels, samples = int(head["active_channels"]), int(head["number_of_samples"])
        dimensions = int(head["trajectory_dimensions"])
        data, trajectory = row["data"], row["traj"]
        if data.size != 2 * channels * samples or trajectory.size != samples * dimensions:
            raise InputError(
                f"{self.name}: acquisition {index} holds {data.size} values where its header "
                f"expects {channels} channels of {samples} complex samples"
            )
        return ismrmrd.Acquisition(
            head.tobytes(),
            data.astype(np.float32).view(np.complex64).reshape(channels, samples),
            trajectory.astype(np.float32).reshape(samples, dimensions),
        )


class Readable(Protocol):
    """What a scan offers a reader, whether it lies in a file or is made as it is read."""

    @property
    def name(self) -> str:
        """Where the scan comes from, for messages."""

    @property
    def header(self) -> Any:
        """The parsed ISMRMRD header."""

    def heads(self) -> npt.NDArray[Any]:
        """Headers of all acquisitions."""

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Read the acquisitions."""


@contextmanager
def open_hdf5(path: PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without a lock so that others may read it too.

    Raises
    ------
    InputError
        Where there is no such file, it may not be read, or it is not HDF5.
    """
    check_readable(path)
    try:
        file = _unlocked(path)
    except OSError as error:
        raise InputError(f"{path}: not an ISMRMRD file (not readable as HDF5)") from error
    with file:
        yield file


def _unlocked(path: PathLike) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError:
        return h5py.File(path, "r")  # this process has it open with locks: they must agree


@contextmanager
def open_scan(path: PathLike, group: str = "dataset") -> Iterator[Scan]:
    """Open a scan in an ISMRMRD file.

    Parameters
    ----------
    path : ISMRMRD (HDF5) file
    group : group of the scan inside the file

    Raises
    ------
    InputError
        Where the file is missing or not ISMRMRD, the group is not there, or it is empty.
    """
    with open_hdf5(path) as file:
        scan = file.get(group)
        if not isinstance(scan, h5py.Group):
            known = ", ".join(sorted(file)) or "none"
            raise InputError(f"{path}: no group '{group}' (groups of this file: {known})")
        name = f"{path} (group '{group}')"
        if "xml" not in scan or "data" not in scan:
            raise InputError(f"{name}: not an ISMRMRD scan, which has 'xml' and 'data'")
        fields = getattr(scan["data"], "dtype", np.dtype(float)).names or ()
        if not {"head", "traj", "data"} <= set(fields):
            raise InputError(f"{name}: 'data' does not hold ISMRMRD acquisitions")
        if scan["data"].shape[0] == 0:
            raise InputError(f"{name}: the dataset is empty, at least one acquisition is needed")
        document = np.ravel(scan["xml"][()])[0]
        xml = decoded(document, name) if isinstance(document, bytes) else undeclared(str(document))
        yield Scan(name, parse_header(xml, name), xml, scan)


@contextmanager
def new_hdf5(path: PathLike, locking: bool | None = False) -> Iterator[h5py.File]:
    """Create an HDF5 file; what is written to it is to be announced to `reserve`.

    HDF5 crashes where a disk is full: it is never let come to that.
    """
    with open(path, "wb") as beginning:
        _allocate(beginning.fileno(), 0, RESERVE)
    with h5py.File(path, "w", locking=locking) as file:
        reserve(file, 0)
        yield file
        release(file)


def reserve(file: h5py.File, count: int) -> None:
    """Have the disk space for so many bytes more, or raise OSError."""
    _allocate(file.id.get_vfd_handle(), file.id.get_filesize(), 2 * count + RESERVE)


def release(file: h5py.File) -> None:
    """Give back what was reserved and not needed."""
    file.flush()
    os.ftruncate(file.id.get_vfd_handle(), file.id.get_filesize())


def _allocate(descriptor: int, start: int, count: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, count)


def write_scan(
    path: PathLike,
    header: Any,
    acquisitions: Iterable[ismrmrd.Acquisition],
    group: str = "dataset",
    *,
    waveforms: Iterable[ismrmrd.Waveform] = (),
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
) -> None:
    """Write a scan as a new ISMRMRD file, replacing any file of that name.

    Parameters
    ----------
    path : file to write
    header : ISMRMRD header, parsed or XML
    acquisitions : consumed one block at a time
    group : group of the scan inside the file
    waveforms : written beside the acquisitions
    arrays : further arrays by their path inside the file, such as "truth/image"
    """
    if isinstance(header, str | bytes):
        header = parse_header(header, "header to write")
    with replacing(path) as partial, new_hdf5(partial) as file:
        writer = ScanWriter(file, header, group)
        for item in chain(acquisitions, waveforms):
            writer.add(item)
        writer.flush()
        for name, array in (arrays or {}).items():
            reserve(file, array.nbytes)
            file.create_dataset(name, data=array)


class ScanWriter:
    """Writes a scan into an open file as it comes, a block at a time.

    Parameters
    ----------
    file : open for writing.
    header : parsed; its `version` is left out, since a server hangs on a version other than its
        own.
    group : of the scan inside the file.
    """

    def __init__(self, file: h5py.File, header: Any, group: str = "dataset") -> None:
        version, header.version = header.version, None
        try:
            xml = undeclared(xsd.ToXML(header)).encode()  # it would declare another encoding
        finally:
            header.version = version
        scan = file.create_group(group)
        scan.create_dataset("xml", data=[xml], dtype=h5py.special_dtype(vlen=bytes))
        self._tables = {
            ismrmrd.Acquisition: Table(scan, "data", Acquisitions),
            ismrmrd.Waveform: Table(scan, "waveforms", Waveforms),
        }
        self._tables[ismrmrd.Acquisition].create()  # even where there are none

    @property
    def acquisitions(self) -> int:
        """How many came."""
        return self._tables[ismrmrd.Acquisition].count

    def add(self, item: ismrmrd.Acquisition | ismrmrd.Waveform) -> None:
        """Keep an acquisition or a waveform; OSError or RuntimeError where it cannot be written."""
        self._tables[type(item)].add(item)

    def flush(self) -> None:
        """Write what was kept."""
        for table in self._tables.values():
            table.write()


class Table:
    """A dataset of acquisitions or waveforms that grows by blocks."""

    def __init__(self, group: h5py.Group, name: str, rows: Any) -> None:
        self.count = 0
        self._group = group
        self._name = name
        self._rows = rows  # Acquisitions or Waveforms of ismrmrd.file
        self._pending: list[Any] = []

    def create(self) -> h5py.Dataset:
        """Make the dataset, empty."""
        return self._group.create_dataset(
            self._name, (0,), self._rows.datatype, maxshape=(None,), chunks=(BLOCK,)
        )

    def add(self, item: Any) -> None:
        """Keep an item; one by one, writing would take too long."""
        self._pending.append(self._rows.to_numpy(item))
        self.count += 1
        if len(self._pending) == BLOCK:
            self.write()

    def write(self) -> None:
        """Write what was kept."""
        if not self._pending:
            return
        block = np.array(self._pending, self._rows.datatype)
        reserve(self._group.file, sum(row[1].nbytes + row[-1].nbytes for row in self._pending))
        dataset = self._group[self._name] if self._name in self._group else self.create()
        dataset.resize(len(dataset) + len(block), axis=0)
        dataset[-len(block) :] = block
        self._group.file.flush()
        self._pending.clear()
