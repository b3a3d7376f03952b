"""ISMRMRD files: lazy reading, atomic writing."""

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

BLOCK = 64  # readouts per access: variable-length rows are slow one by one
RESERVE = 1 << 20  # bytes that HDF5 may write in addition to the data


@dataclass(frozen=True)
class Scan:
    """Open ISMRMRD scan; iteration reads its acquisitions block by block.

    Attributes
    ----------
    name : str
        Path and group, for messages.
    header : ismrmrdHeader
    header_xml : str
        The header as stored, without encoding declaration.
    """

    name: str
    header: xsd.ismrmrdHeader
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
        """Read the headers of all acquisitions into a structured array."""
        heads: npt.NDArray[Any] = self._group["data"].fields("head")[:]
        return heads.astype(acquisition_header_dtype)

    def waveforms(self) -> Iterator[ismrmrd.Waveform]:
        """Read the physiological waveforms, if any."""
        if "waveforms" in self._group:
            yield from Waveforms(self._group["waveforms"])

    def _acquisition(self, index: int, row: Any) -> ismrmrd.Acquisition:
        head = np.asarray(row["head"]).astype(acquisition_header_dtype)
        channels, samples = int(head["active_channels"]), int(head["number_of_samples"])
        dimensions = int(head["trajectory_dimensions"])
        data, trajectory = row["data"], row["traj"]
        if data.size != 2 * channels * samples or trajectory.size != samples * dimensions:
            raise InputError(
                f"{self.name}: acquisition {index} has {data.size} values, its header "
                f"{channels} channels of {samples} complex samples"
            )
        return ismrmrd.Acquisition(
            head.tobytes(),
            data.astype(np.float32).view(np.complex64).reshape(channels, samples),
            trajectory.astype(np.float32).reshape(samples, dimensions),
        )


class Readable(Protocol):
    """Scan that can be read, from a file or generated."""

    @property
    def name(self) -> str:
        """Source of the scan, for messages."""

    @property
    def header(self) -> xsd.ismrmrdHeader:
        """ISMRMRD header."""

    def heads(self) -> npt.NDArray[Any]:
        """Return the headers of all acquisitions as a structured array."""

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions."""


@contextmanager
def open_hdf5(path: PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without a lock.

    Parameters
    ----------
    path : path-like

    Yields
    ------
    h5py.File

    Raises
    ------
    InputError
        The file is missing, not readable or not HDF5.
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
        return h5py.File(path, "r")  # must match if this process has it open with locks


@contextmanager
def open_scan(path: PathLike, group: str = "dataset") -> Iterator[Scan]:
    """Open a scan in an ISMRMRD file.

    Parameters
    ----------
    path : path-like
        ISMRMRD (HDF5) file.
    group : str, optional
        Group of the scan in the file.

    Yields
    ------
    Scan

    Raises
    ------
    InputError
        The file is missing or not ISMRMRD, or the group is missing or empty.
    """
    with open_hdf5(path) as file:
        scan = file.get(group)
        if not isinstance(scan, h5py.Group):
            known = ", ".join(sorted(file)) or "none"
            raise InputError(f"{path}: no group '{group}' (groups of this file: {known})")
        name = f"{path} (group '{group}')"
        if "xml" not in scan or "data" not in scan:
            raise InputError(f"{name}: not an ISMRMRD scan: expected datasets 'xml' and 'data'")
        fields = getattr(scan["data"], "dtype", np.dtype(float)).names or ()
        if not {"head", "traj", "data"} <= set(fields):
            raise InputError(f"{name}: dataset 'data' is not of ISMRMRD acquisitions")
        if scan["data"].shape[0] == 0:
            raise InputError(f"{name}: the dataset is empty: expected at least one acquisition")
        document = np.ravel(scan["xml"][()])[0]
        xml = decoded(document, name) if isinstance(document, bytes) else undeclared(str(document))
        yield Scan(name, parse_header(xml, name), xml, scan)


@contextmanager
def new_hdf5(path: PathLike, locking: bool | None = False) -> Iterator[h5py.File]:
    """Create an HDF5 file; call `reserve` before each write, as HDF5 crashes on a full disk.

    Parameters
    ----------
    path : path-like
    locking : bool, optional
        As in `h5py.File`.

    Yields
    ------
    h5py.File
    """
    with open(path, "wb") as new:
        _allocate(new.fileno(), 0, RESERVE)
    with h5py.File(path, "w", locking=locking) as file:
        reserve(file, 0)
        yield file
        release(file)


def reserve(file: h5py.File, count: int) -> None:
    """Allocate disk space for `count` further bytes.

    Raises
    ------
    OSError
        The disk is full.
    """
    _allocate(file.id.get_vfd_handle(), file.id.get_filesize(), 2 * count + RESERVE)


def release(file: h5py.File) -> None:
    """Free unused space that was reserved."""
    file.flush()
    os.ftruncate(file.id.get_vfd_handle(), file.id.get_filesize())


def _allocate(descriptor: int, start: int, count: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, count)


def write_scan(
    path: PathLike,
    header: xsd.ismrmrdHeader | str | bytes,
    acquisitions: Iterable[ismrmrd.Acquisition],
    group: str = "dataset",
    *,
    waveforms: Iterable[ismrmrd.Waveform] = (),
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
) -> None:
    """Write a scan to a new ISMRMRD file, which replaces an existing one atomically.

    Parameters
    ----------
    path : path-like
    header : ismrmrdHeader, str or bytes
    acquisitions : iterable of ismrmrd.Acquisition
        Read block by block.
    group : str, optional
        Group of the scan in the file.
    waveforms : iterable of ismrmrd.Waveform, optional
    arrays : mapping of str to array, optional
        Further arrays by their path in the file, such as "truth/image".
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
    """Writer of a scan into an open file, block by block.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    header : ismrmrdHeader
        Written without `version`: a Gadgetron server hangs on another version.
    group : str, optional
        Group of the scan in the file.
    """

    def __init__(self, file: h5py.File, header: xsd.ismrmrdHeader, group: str = "dataset") -> None:
        version, header.version = header.version, None
        try:
            xml = undeclared(xsd.ToXML(header)).encode()  # xsdata declares another encoding
        finally:
            header.version = version
        scan = file.create_group(group)
        scan.create_dataset("xml", data=[xml], dtype=h5py.special_dtype(vlen=bytes))
        self._tables = {
            ismrmrd.Acquisition: Table(scan, "data", Acquisitions),
            ismrmrd.Waveform: Table(scan, "waveforms", Waveforms),
        }
        self._tables[ismrmrd.Acquisition].create()  # even without acquisitions

    @property
    def acquisitions(self) -> int:
        """Number of acquisitions added."""
        return self._tables[ismrmrd.Acquisition].count

    def add(self, item: ismrmrd.Acquisition | ismrmrd.Waveform) -> None:
        """Add an acquisition or a waveform.

        Raises
        ------
        OSError, RuntimeError
            The block cannot be written.
        """
        self._tables[type(item)].add(item)

    def flush(self) -> None:
        """Write buffered items."""
        for table in self._tables.values():
            table.write()


class Table:
    """HDF5 dataset of acquisitions or waveforms, written block by block.

    Parameters
    ----------
    group : h5py.Group
    name : str
        Of the dataset.
    rows : class
        Acquisitions or Waveforms of ismrmrd.file.
    """

    def __init__(self, group: h5py.Group, name: str, rows: Any) -> None:
        self.count = 0
        self._group = group
        self._name = name
        self._rows = rows
        self._pending: list[Any] = []

    def create(self) -> h5py.Dataset:
        """Create an empty dataset."""
        return self._group.create_dataset(
            self._name, (0,), self._rows.datatype, maxshape=(None,), chunks=(BLOCK,)
        )

    def add(self, item: Any) -> None:
        """Buffer an item; write if a block is complete."""
        self._pending.append(self._rows.to_numpy(item))
        self.count += 1
        if len(self._pending) == BLOCK:
            self.write()

    def write(self) -> None:
        """Write buffered items."""
        if not self._pending:
            return
        block = np.array(self._pending, self._rows.datatype)
        reserve(self._group.file, sum(row[1].nbytes + row[-1].nbytes for row in self._pending))
        dataset = self._group[self._name] if self._name in self._group else self.create()
        dataset.resize(len(dataset) + len(block), axis=0)
        dataset[-len(block) :] = block
        self._group.file.flush()
        self._pending.clear()
