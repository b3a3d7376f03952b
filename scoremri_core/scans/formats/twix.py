"""Siemens raw data (twix .dat, VB and VD to XA), read with twixtools."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd.hdf5 import acquisition_header_dtype

from scoremri_core.errors import InputError
from scoremri_core.paths import PathLike
from scoremri_core.scans.flags import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    LAST_IN_SLICE,
    NO_IMAGE,
    NOISE,
    REVERSE,
    flag_bits,
)
from scoremri_core.scans.formats.array_scan import FIRST_IN_SLICE, LAST_IN_MEASUREMENT, ArrayScan
from scoremri_core.scans.formats.siemens_protocol import header_of, value

logger = logging.getLogger(__name__)

FLAGS = {
    "NOISEADJSCAN": NOISE,
    "PATREFSCAN": CALIBRATION,
    "PATREFANDIMASCAN": CALIBRATION_AND_IMAGING,
    "REFLECT": REVERSE,
    "PHASCOR": flag_bits(ismrmrd.ACQ_IS_PHASECORR_DATA),
    "RTFEEDBACK": flag_bits(ismrmrd.ACQ_IS_RTFEEDBACK_DATA),
    "HPFEEDBACK": flag_bits(ismrmrd.ACQ_IS_HPFEEDBACK_DATA),
    "PHASESTABSCAN": flag_bits(ismrmrd.ACQ_IS_PHASE_STABILIZATION),
    "REFPHASESTABSCAN": flag_bits(ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE),
    "FIRSTSCANINSLICE": FIRST_IN_SLICE,
    "LASTSCANINSLICE": LAST_IN_SLICE,
    "LASTSCANINMEAS": LAST_IN_MEASUREMENT,
}  # by Siemens' names
SIEMENS_COUNTERS = {
    "kspace_encode_step_1": "cLin",
    "kspace_encode_step_2": "cPar",
    "average": "cAve",
    "slice": "cSlc",
    "contrast": "cEco",
    "phase": "cPhs",
    "repetition": "cRep",
    "set": "cSet",
    "segment": "cSeg",
}
CARTESIAN = 1  # of ucTrajectory
SMALLEST = 128  # bytes of a block


@contextmanager
def open_made(path: PathLike) -> Iterator[ArrayScan]:
    """Open the last scan of a file, with its noise scan or that of the scans before it.

    Positions and directions are those of the readouts' headers, in the patient's coordinates: the
    read direction is the second column of the rotation that the quaternion gives, phase the
    first, slice the third, as in siemens_to_ismrmrd.

    Raises
    ------
    InputError
        Where twixtools is missing, the file is damaged, or the trajectory is not Cartesian.
    """
    *before, scan = _read(path)
    protocol = scan["hdr"]
    name = f"{path} (scan {_name(scan) or 'without a name'})"
    trajectory = value(protocol, "sKSpace", "ucTrajectory")
    if trajectory not in (None, CARTESIAN):
        raise InputError(f"{name}: trajectory {trajectory} of Siemens: expected Cartesian (1)")
    readouts = scan["mdb"]
    heads = _heads(readouts, protocol)
    if not any(block.is_flag_set("NOISEADJSCAN") for block in readouts):
        # the scan that adjusts the coils holds the noise of all that follow it
        for own in reversed(before):
            noise = [block for block in own["mdb"] if block.is_flag_set("NOISEADJSCAN")]
            readouts = noise + readouts
            heads = np.concatenate([_heads(noise, own["hdr"]), heads])  # its dwell time is its own
        heads["scan_counter"] = np.arange(len(heads)) + 1
    imaging = heads[heads["flags"] & np.uint64(NO_IMAGE) == 0]
    if not len(imaging):
        raise InputError(f"{name}: no imaging lines")
    header = header_of(name, protocol, imaging)

    def readout(index: int) -> npt.NDArray[Any]:
        try:
            data: npt.NDArray[Any] = readouts[index].data
        except (ValueError, TypeError, OSError) as error:
            raise InputError(f"{name}: cut off in acquisition {index} of {len(heads)}") from error
        return data

    yield ArrayScan(name, header, heads, readout)


def _name(scan: Any) -> str:
    """Of a scan, as the file's table has it; a file of VB has no table."""
    entry = scan.get("raidfile_hdr")
    return "" if entry is None else entry[-1].decode("latin-1")


def _read(path: PathLike) -> list[Any]:
    try:
        import twixtools
    except ImportError as error:
        raise InputError(
            f"{path}: Siemens raw data needs twixtools, of the extra `twix`"
        ) from error
    try:
        # of protocols that it does not know all of
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as told:
            warnings.simplefilter("ignore")
            scans = twixtools.read_twix(
                str(path), parse_data=False, parse_pmu=False, parse_geometry=False, verbose=False
            )
    # whatever a damaged file does to its reader
    except Exception as error:
        raise InputError(
            f"{path}: seems to be Siemens raw data, and twixtools cannot read it ({error})"
        ) from error
    logger.debug("%s: %s", path, told.getvalue().strip())
    for scan in scans:
        scan["mdb"] = _readouts(path, scan)
    scans = [scan for scan in scans if scan["mdb"]]
    if not scans or any("MeasYaps" not in scan["hdr"] for scan in scans):
        raise InputError(f"{path}: Siemens raw data without a whole scan")
    return scans


def _readouts(path: PathLike, scan: Any) -> list[Any]:
    """The readouts of a scan, as twixtools has them, up to the block that marks its end."""
    from twixtools.mdb import Mdb

    entry = scan.get("raidfile_hdr")
    start, length = (0, 0) if entry is None else (int(entry["off_"]), int(entry["len_"]))
    size = Path(path).stat().st_size
    position, end = start + len(scan["hdr_str"]), start + length if length else size
    found: list[Any] = []
    with open(path, "rb") as file:
        while position + SMALLEST <= end:
            file.seek(position)
            try:
                block = Mdb(file, entry is not None)
            except ValueError:  # of a channel's header that is not there
                position = size + 1
                break
            if block.is_flag_set("ACQEND"):
                return found
            is_readout = not block.is_flag_set("SYNCDATA")
            if not block.dma_len or (is_readout and not block.mdh.UsedChannels):
                raise InputError(
                    f"{path}: Siemens raw data without content after readout {len(found)}: "
                    "is the copy complete?"
                )
            if is_readout:
                found.append(block)
            position += int(block.dma_len)
    if position > size:
        raise InputError(f"{path}: Siemens raw data that end within a readout: is the file whole?")
    logger.warning(
        "%s: Siemens raw data without the block that marks their end: is the file whole?", path
    )
    return found


def _heads(readouts: list[Any], protocol: Any) -> npt.NDArray[Any]:
    heads = np.zeros(len(readouts), acquisition_header_dtype)
    heads["version"] = 1
    dwells = value(protocol, "sRXSPEC", "alDwellTime") or [0]  # ns, an echo each
    for index, (head, block) in enumerate(zip(heads, readouts, strict=True)):
        own = block.mdh
        samples, coils = int(own.SamplesInScan), int(own.UsedChannels)
        active = [name for name in block.get_active_flags() if name in FLAGS]
        head["flags"] = sum(FLAGS[name] for name in active)
        if "PATREFANDIMASCAN" in active:  # comes with PATREFSCAN, which would be a line beside
            head["flags"] &= ~np.uint64(CALIBRATION)
        head["measurement_uid"] = own.MeasUID
        head["scan_counter"] = index + 1
        head["acquisition_time_stamp"] = own.TimeStamp
        head["physiology_time_stamp"][0] = own.PMUTimeStamp
        head["number_of_samples"] = samples
        head["available_channels"] = head["active_channels"] = coils
        head["discard_pre"], head["discard_post"] = own.CutOff.Pre, own.CutOff.Post
        head["center_sample"] = own.CenterCol
        echo = min(int(block.cEco), len(dwells) - 1)
        head["sample_time_us"] = float(dwells[echo]) / 1000
        for counter, siemens in SIEMENS_COUNTERS.items():
            head["idx"][counter] = getattr(block, siemens)
        head["idx"]["user"][5], head["idx"]["user"][6] = own.CenterLin, own.CenterPar
        place = own.SliceData.SlicePos
        head["position"] = place.Sag, place.Cor, place.Tra  # to the left, back and head: LPS
        rotation = _rotation(own.SliceData.Quaternion)
        head["phase_dir"], head["read_dir"], head["slice_dir"] = rotation.T
    return heads


def _rotation(quaternion: Any) -> npt.NDArray[np.float64]:
    """Matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = np.asarray(quaternion, float)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
