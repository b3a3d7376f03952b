"""What kind of raw data a file holds, told by what is inside it."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import h5py

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike, check_readable
from scoremri_core.scans.files import open_hdf5
from scoremri_core.scans.formats.geometry import find_sidecar

HDF5 = b"\x89HDF\r\n\x1a\n"
NUMPY = b"\x93NUMPY"
ZIP = b"PK\x03\x04"  # as an .npz is
NIFTI = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
SUFFIXES = (".h5", ".hdf5", ".mrd", ".cfl", ".dat", ".npy", ".npz")  # of what is read
NO_RAW_DATA = "images without the k-space of the coils; expected the scanner's raw data"
BEGINNING = 1024  # bytes that are looked at
DIMENSIONS_TITLE = "# Dimensions"  # of the section in BART's headers
MOST_OF_HEADER = 1 << 20  # bytes of these, which may hold a long command line
RAW_ARRAY = b"rawarray"


def recognise(path: PathLike, group: str = "dataset") -> str:
    """The format of raw data: ismrmrd, fastmri, bart, twix or numpy.

    What is none of these counts as ISMRMRD, whose reader says what it misses.

    Raises
    ------
    InputError
        Where there is no such file; where it is of a format that is not read here, naming it and
        the converter to use.
    """
    if _is_bart(bart_header(path)):
        return "bart"
    if Path(path).is_dir():
        _refuse_folder(Path(path))
    check_readable(path)
    with open(path, "rb") as file:
        beginning = file.read(BEGINNING)
    if beginning.startswith(HDF5):
        return _hdf5(path, group)
    if beginning.startswith(NUMPY) or (
        beginning.startswith(ZIP) and Path(path).suffix.lower() == ".npz"
    ):
        return "numpy"
    if is_twix(Path(path), beginning):
        return "twix"
    if foreign := _foreign(Path(path), beginning):
        raise InputError(f"{path}: {foreign}")
    return "ismrmrd"


def may_be_raw_data(path: Path) -> bool:
    """Whether a file's name is that of raw data; a NumPy array of anything has no side-car."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or path.name.startswith(".") or not path.is_file():
        return False
    return suffix not in (".npy", ".npz") or find_sidecar(path) is not None


def data_file(path: Path) -> Path:
    """The .cfl of a BART file that is named by its .hdr or without a suffix; else the path."""
    header = bart_header(path)
    if path.suffix.lower() == ".cfl" or path.is_dir() or not header.is_file():
        return path
    return _beside(header, ".cfl")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or a folder holds some."""
    if path.is_dir():
        return any(is_dicom(entry) for entry in sorted(path.iterdir())[:8] if entry.is_file())
    return path.is_file() and _beginning(path)[128:132] == b"DICM"


def bart_header(path: PathLike) -> Path:
    """The .hdr of a BART file, which is named by its .cfl, its .hdr or without a suffix."""
    path = Path(path)
    if path.suffix.lower() == ".hdr":
        return path
    return _beside(path, ".hdr") if path.suffix.lower() == ".cfl" else Path(f"{path}.hdr")


def _beside(path: Path, suffix: str) -> Path:
    """The file of the same name with a suffix, which may be in capitals."""
    capitals = path.with_suffix(suffix.upper())
    return capitals if capitals.is_file() else path.with_suffix(suffix)


def is_twix(path: Path, beginning: bytes) -> bool:
    """Whether a file is Siemens raw data, VB (one scan) or VD and later (up to 64 scans)."""
    if len(beginning) < 24:
        return False
    first, second = struct.unpack_from("<II", beginning)
    start = 0
    if first < 10_000 and 1 <= second <= 64:  # a table of the scans, with their offsets
        start = struct.unpack_from("<Q", beginning, 16)[0]
    if start + 16 > path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(start)
        # size of the protocols, their number, and the name of the first
        size, count, name = struct.unpack("<II8s", file.read(16))
    return 0 < count < 32 and size > 16 and name.split(b"\0")[0] in (b"Config", b"Dicom", b"Meas")


def _is_bart(header: Path) -> bool:
    """Whether a file has dimensions as BART writes them, of its sections the first or a later."""
    if not header.is_file():
        return False
    with header.open("rb") as file:
        lines = file.read(MOST_OF_HEADER).splitlines()
    return any(line.startswith(DIMENSIONS_TITLE.encode()) for line in lines)


def _hdf5(path: PathLike, group: str) -> str:
    try:
        with open_hdf5(path) as file:
            if group not in file and isinstance(file.get("kspace"), h5py.Dataset):
                return "fastmri"
            if group not in file and Path(path).name.lower().startswith("scanarchive"):
                raise InputError(
                    f"{path}: GE raw data (ScanArchive); convert it with ge_to_ismrmrd, which "
                    "needs GE's Orchestra"
                )
    except OSError:  # of a damaged file, as its reader will say
        pass
    return "ismrmrd"


def _refuse_folder(path: Path) -> None:
    inside = {entry.name.lower() for entry in path.iterdir()}
    if {"acqp", "method"} <= inside:
        raise InputError(
            f"{path}: a Bruker ParaVision folder; convert it with bruker_to_ismrmrd first"
        )
    if is_dicom(path):
        raise InputError(f"{path}: a folder of DICOM, {NO_RAW_DATA}")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BEGINNING)


def _foreign(path: Path, beginning: bytes) -> str:
    """What a file seems to be that is not read here, and what to do; empty where not known."""
    suffix = path.suffix.lower()
    if is_dicom(path):
        return f"DICOM, {NO_RAW_DATA}"
    if _is_nifti(beginning):
        return f"NIfTI, {NO_RAW_DATA}"
    if b"GE_MED" in beginning or re.fullmatch(r"P\d{5}\.7", path.name):
        return (
            "GE raw data (P-file); convert it with ge_to_ismrmrd, which needs GE's Orchestra, first"
        )
    if suffix in (".raw", ".lab", ".sin"):
        return "Philips raw data (.raw, .lab, .sin); convert it with philips_to_ismrmrd first"
    if suffix == ".list" or (suffix == ".data" and path.with_suffix(".list").is_file()):
        return "Philips raw data (.list, .data); convert it with philips_to_ismrmrd first"
    if beginning.lstrip().startswith(b"##TITLE=") or path.name in ("fid", "rawdata.job0"):
        return "Bruker raw data; convert its folder with bruker_to_ismrmrd first"
    if beginning.startswith(b"MATLAB"):
        return "a MATLAB file; save its k-space with BART's writecfl, or with NumPy"
    if beginning.startswith(RAW_ARRAY):
        return "a RawArray (.ra); convert it first, with `bart copy IN.ra OUT`"
    if beginning.startswith(b"yardl"):
        return "an MRD v2 stream; give it to `scoremri stream`"
    if suffix == ".cfl":
        return "a BART .cfl without its .hdr, which has the dimensions"
    return ""


def _is_nifti(beginning: bytes) -> bool:
    if beginning.startswith(b"\x1f\x8b"):
        try:
            beginning = zlib.decompressobj(31).decompress(beginning, BEGINNING)
        except zlib.error:
            return False
    return beginning[344:348] in NIFTI or beginning[4:8] in NIFTI
