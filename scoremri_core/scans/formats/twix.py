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
}  # by Siemens name
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
CARTESIAN = 1  # ucTrajectory
MIN_BLOCK = 128  # bytes


@contextmanager
def open_array_scan(path: PathLike) -> Iterator[ArrayScan]:
    """Open the last scan of a file, with its noise scan or those of preceding scans.

    Positions and directions are those of the readout headers, in patient coordinates. As in
    siemens_to_ismrmrd, the columns of the rotation of the quaternion are the phase, read and slice
    directions.

    Parameters
    ----------
    path : path-like

    Yields
    ------
    ArrayScan

    Raises
    ------
    InputError
        twixtools is missing, the file is damaged, or the trajectory is not Cartesian.
    """
    *preceding, scan = _read(path)
    protocol = scan["hdr"]
    name = f"{path} (scan {_name(scan) or 'without a name'})"
    trajectory = value(protocol, "sKSpace", "ucTrajectory")
    if trajectory not in (None, CARTESIAN):
        raise InputError(f"{name}: ucTrajectory {trajectory}: expected 1 (Cartesian)")
    readouts = scan["mdb"]
    heads = _heads(readouts, protocol)
    if not any(block.is_flag_set("NOISEADJSCAN") for block in readouts):
        # the adjustment scan contains the noise scan of all following scans, with its dwell time
        for other in reversed(preceding):
            noise = [block for block in other["mdb"] if block.is_flag_set("NOISEADJSCAN")]
            readouts = noise + readouts
            heads = np.concatenate([_heads(noise, other["hdr"]), heads])
        heads["scan_counter"] = np.arange(len(heads)) + 1
    imaging = heads[heads["flags"] & np.uint64(NO_IMAGE) == 0]
    if not len(imaging):
        raise InputError(f"{name}: no imaging lines")
    header = header_of(name, protocol, imaging)

    def readout(index: int) -> npt.NDArray[Any]:
        try:
            data: npt.NDArray[Any] = readouts[index].data
        except (ValueError, TypeError, OSError) as error:
            raise InputError(
                f"{name}: file ends within acquisition {index} of {len(heads)}"
            ) from error
        return data

    yield ArrayScan(name, header, heads, readout)


def _name(scan: Any) -> str:
    """Return the name of a scan; empty in VB files, which have no table of scans."""
    entry = scan.get("raidfile_hdr")
    return "" if entry is None else entry[-1].decode("latin-1")


def _read(path: PathLike) -> list[Any]:
    try:
        import twixtools
    except ImportError as error:
        raise InputError(
            f"{path}: Siemens raw data needs twixtools: pip install 'scoremri[twix]'"
        ) from error
    try:
        # twixtools prints and warns about unknown parts of the protocol
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as printed:
            warnings.simplefilter("ignore")
            scans = twixtools.read_twix(
                str(path), parse_data=False, parse_pmu=False, parse_geometry=False, verbose=False
            )
    except Exception as error:  # any exception of a damaged file
        raise InputError(
            f"{path}: Siemens raw data that twixtools cannot read ({error})"
        ) from error
    logger.debug("%s: %s", path, printed.getvalue().strip())
    for scan in scans:
        scan["mdb"] = _readouts(path, scan)
    scans = [scan for scan in scans if scan["mdb"]]
    if not scans or any("MeasYaps" not in scan["hdr"] for scan in scans):
        raise InputError(f"{path}: Siemens raw data without a complete scan")
    return scans


def _readouts(path: PathLike, scan: Any) -> list[Any]:
    """Return the readouts of a scan, as of twixtools, up to the end block."""
    from twixtools.mdb import Mdb

    entry = scan.get("raidfile_hdr")
    start, length = (0, 0) if entry is None else (int(entry["off_"]), int(entry["len_"]))
    size = Path(path).stat().st_size
    position, end = start + len(scan["hdr_str"]), start + length if length else size
    readouts: list[Any] = []
    with open(path, "rb") as file:
        while position + MIN_BLOCK <= end:
            file.seek(position)
            try:
                block = Mdb(file, entry is not None)
            except ValueError:  # missing channel header
                position = size + 1
                break
            if block.is_flag_set("ACQEND"):
                return readouts
            is_readout = not block.is_flag_set("SYNCDATA")
            if not block.dma_len or (is_readout and not block.mdh.UsedChannels):
                raise InputError(
                    f"{path}: Siemens raw data without content after readout {len(readouts)}: "
                    "is the copy complete?"
                )
            if is_readout:
                readouts.append(block)
            position += int(block.dma_len)
    if position > size:
        raise InputError(f"{path}: Siemens raw data end within a readout: is the copy complete?")
    logger.warning("%s: Siemens raw data without end block: is the copy complete?", path)
    return readouts


def _heads(readouts: list[Any], protocol: Any) -> npt.NDArray[Any]:
    heads = np.zeros(len(readouts), acquisition_header_dtype)
    heads["version"] = 1
    dwells = value(protocol, "sRXSPEC", "alDwellTime") or [0]  # ns, per echo
    for index, (head, block) in enumerate(zip(heads, readouts, strict=True)):
        mdh = block.mdh
        samples, coils = int(mdh.SamplesInScan), int(mdh.UsedChannels)
        active = [name for name in block.get_active_flags() if name in FLAGS]
        head["flags"] = sum(FLAGS[name] for name in active)
        if "PATREFANDIMASCAN" in active:  # set together with PATREFSCAN
            head["flags"] &= ~np.uint64(CALIBRATION)
        head["measurement_uid"] = mdh.MeasUID
        head["scan_counter"] = index + 1
        head["acquisition_time_stamp"] = mdh.TimeStamp
        head["physiology_time_stamp"][0] = mdh.PMUTimeStamp
        head["number_of_samples"] = samples
        head["available_channels"] = head["active_channels"] = coils
        head["discard_pre"], head["discard_post"] = mdh.CutOff.Pre, mdh.CutOff.Post
        head["center_sample"] = mdh.CenterCol
        echo = min(int(block.cEco), len(dwells) - 1)
        head["sample_time_us"] = float(dwells[echo]) / 1000
        for counter, siemens in SIEMENS_COUNTERS.items():
            head["idx"][counter] = getattr(block, siemens)
        head["idx"]["user"][5], head["idx"]["user"][6] = mdh.CenterLin, mdh.CenterPar
        position = mdh.SliceData.SlicePos
        head["position"] = position.Sag, position.Cor, position.Tra  # LPS
        rotation = _rotation(mdh.SliceData.Quaternion)
        head["phase_dir"], head["read_dir"], head["slice_dir"] = rotation.T
    return heads


def _rotation(quaternion: Any) -> npt.NDArray[np.float64]:
    """Return the rotation matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = np.asarray(quaternion, float)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
