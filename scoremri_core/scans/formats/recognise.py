"""Recognition of raw-data formats by content."""

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
ZIP = b"PK\x03\x04"  # of .npz
NIFTI = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
SUFFIXES = (".h5", ".hdf5", ".mrd", ".cfl", ".dat", ".npy", ".npz")  # of supported formats
NO_RAW_DATA = "images without the k-space of the coils; expected the scanner's raw data"
BEGINNING = 1024  # bytes that are examined
DIMENSIONS_TITLE = "# Dimensions"  # section of a BART header
MAX_BART_HEADER = 1 << 20  # bytes; it may contain a long command line
RAW_ARRAY = b"rawarray"


def recognise(path: PathLike, group: str = "dataset") -> str:
    """Recognise the format of raw data.

    Parameters
    ----------
    path : path-like
    group : str, optional
        Group of the scan in an ISMRMRD file.

    Returns
    -------
    {"ismrmrd", "fastmri", "bart", "twix", "numpy"}
        An unknown file is "ismrmrd", whose reader reports what is wrong.

    Raises
    ------
    InputError
        The file is missing, or of a known format that is not supported; names the converter.
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
    """Whether a file name is that of raw data; a NumPy array must have a side-car."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or path.name.startswith(".") or not path.is_file():
        return False
    return suffix not in (".npy", ".npz") or find_sidecar(path) is not None


def data_file(path: Path) -> Path:
    """Return the .cfl of a BART file that is given by its .hdr or without suffix; else the path."""
    header = bart_header(path)
    if path.suffix.lower() == ".cfl" or path.is_dir() or not header.is_file():
        return path
    return _with_suffix(header, ".cfl")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or a folder contains DICOM files."""
    if path.is_dir():
        return any(is_dicom(entry) for entry in sorted(path.iterdir())[:8] if entry.is_file())
    return path.is_file() and _beginning(path)[128:132] == b"DICM"


def bart_header(path: PathLike) -> Path:
    """Return the .hdr of a BART file that is given by its .cfl, its .hdr or without suffix."""
    path = Path(path)
    if path.suffix.lower() == ".hdr":
        return path
    return _with_suffix(path, ".hdr") if path.suffix.lower() == ".cfl" else Path(f"{path}.hdr")


def _with_suffix(path: Path, suffix: str) -> Path:
    """Replace the suffix, in capitals if such a file exists."""
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
        # size and number of protocols, name of the first
        size, count, name = struct.unpack("<II8s", file.read(16))
    return 0 < count < 32 and size > 16 and name.split(b"\0")[0] in (b"Config", b"Dicom", b"Meas")


def _is_bart(header: Path) -> bool:
    """Whether a file has the dimensions section of a BART header."""
    if not header.is_file():
        return False
    with header.open("rb") as file:
        lines = file.read(MAX_BART_HEADER).splitlines()
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
    except OSError:  # damaged; reported by the reader
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
    """Describe a file of an unsupported format and what to do; empty if unknown."""
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
