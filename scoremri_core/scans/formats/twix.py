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
from ismrmrd import xsd
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
from scoremri_core.scans.formats.made import (
    FIRST_IN_SLICE,
    LAST_IN_MEASUREMENT,
    MadeScan,
    acceleration,
)

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
COUNTERS = {
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
NOISE_BANDWIDTH = 0.79  # relative, of Siemens' receivers, where the header does not say
CARTESIAN = 1  # of ucTrajectory


@contextmanager
def open_made(path: PathLike) -> Iterator[MadeScan]:
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
    trajectory = _value(protocol, "sKSpace", "ucTrajectory")
    if trajectory not in (None, CARTESIAN):
        raise InputError(f"{name}: trajectory {trajectory} of Siemens: expected Cartesian (1)")
    readouts = [block for block in scan["mdb"] if _is_readout(block)]
    heads = _heads(readouts, protocol)
    if not any(block.is_flag_set("NOISEADJSCAN") for block in readouts):
        # the scan that adjusts the coils holds the noise of all that follow it
        for own in reversed(before):
            noise = [block for block in own["mdb"] if block.is_flag_set("NOISEADJSCAN")]
            readouts = noise + readouts
            heads = np.concatenate([_heads(noise, own["hdr"]), heads])  # its dwell time is its own
        heads["scan_counter"] = np.arange(len(heads)) + 1
    if max(b.mem_pos + b.dma_len for b in readouts) > Path(path).stat().st_size:
        raise InputError(f"{path}: Siemens raw data that end within a readout: is the file whole?")
    imaging = heads[heads["flags"] & np.uint64(NO_IMAGE) == 0]
    if not len(imaging):
        raise InputError(f"{name}: no imaging lines")
    header = _header(name, protocol, imaging)

    def readout(index: int) -> npt.NDArray[Any]:
        try:
            data: npt.NDArray[Any] = readouts[index].data
        except (ValueError, TypeError, OSError) as error:
            raise InputError(f"{name}: cut off in acquisition {index} of {len(heads)}") from error
        return data

    yield MadeScan(name, header, heads, readout)


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
                str(path), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False
            )
    # whatever a damaged file does to its reader
    except Exception as error:
        raise InputError(
            f"{path}: seems to be Siemens raw data, and twixtools cannot read it ({error})"
        ) from error
    logger.debug("%s: %s", path, told.getvalue().strip())
    scans = [scan for scan in scans if isinstance(scan, dict) and scan.get("mdb")]
    if not scans or any("MeasYaps" not in scan["hdr"] for scan in scans):
        raise InputError(f"{path}: Siemens raw data without a whole scan")
    return scans


def _is_readout(block: Any) -> bool:
    return not (block.is_flag_set("ACQEND") or block.is_flag_set("SYNCDATA"))


def _heads(readouts: list[Any], protocol: Any) -> npt.NDArray[Any]:
    heads = np.zeros(len(readouts), acquisition_header_dtype)
    heads["version"] = 1
    dwells = _value(protocol, "sRXSPEC", "alDwellTime") or [0]  # ns, an echo each
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
        for counter, siemens in COUNTERS.items():
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


def _header(name: str, protocol: Any, imaging: npt.NDArray[Any]) -> Any:
    """The ISMRMRD header of a protocol; where the readouts contradict it, they are right."""
    factor = float(_find(protocol, "flReadoutOSFactor") or 2)
    is_volume = _value(protocol, "sKSpace", "ucDimension") == 4 and (
        int(imaging["idx"]["kspace_encode_step_2"].max()) > 0
    )
    one = _value(protocol, "sSliceArray", "asSlice")[0]
    base = int(_value(protocol, "sKSpace", "lBaseResolution"))
    nx = round(base * factor)
    samples = int((imaging["number_of_samples"] - imaging["discard_pre"]).max())
    if samples > nx:
        logger.warning(
            "%s: readouts of %d samples, where the protocol has %d: taken as they are",
            name, samples, nx,
        )  # fmt: skip
        nx = samples
    over = float(_value(protocol, "sKSpace", "dPhaseOversamplingForDialog") or 0)
    over_z = float(_value(protocol, "sKSpace", "dSliceOversamplingForDialog") or 0)
    planned = round(int(_value(protocol, "sKSpace", "lPhaseEncodingLines")) * (1 + over))
    lines, ny = _limit(name, "lines", imaging, "kspace_encode_step_1", planned, 5)
    planned = int(_value(protocol, "sKSpace", "lPartitions") or 1) if is_volume else 1
    partitions, nz = _limit(
        name, "partitions", imaging, "kspace_encode_step_2", round(planned * (1 + over_z)), 6
    )
    fov = float(one["dReadoutFOV"]), float(one["dPhaseFOV"]), float(one["dThickness"])

    def space(matrix: tuple[int, ...], sides: tuple[float, ...]) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", matrix, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", sides, strict=True))),
        )

    # pixels are square, whatever the resolution along the lines
    image_lines = max(round(nx / factor * fov[1] / fov[0]), 1)
    image = round(nx / factor), image_lines, max(round(nz / (1 + over_z)), 1)
    counters = {
        counter: xsd.limitType(minimum=0, maximum=int(imaging["idx"][counter].max()), center=0)
        for counter in ("slice", "contrast", "phase", "repetition", "set", "average", "segment")
    }
    encoding = xsd.encodingType(
        encodedSpace=space(
            (nx, ny, nz), (fov[0] * factor, fov[1] * (1 + over), fov[2] * (1 + over_z))
        ),
        reconSpace=space(image, fov),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=lines, kspace_encoding_step_2=partitions, **counters
        ),
        trajectory=xsd.trajectoryType.CARTESIAN,
    )
    steps = (_value(protocol, "sPat", key) or 1 for key in ("lAccelFactPE", "lAccelFact3D"))
    factors = [int(step) for step in steps]
    if max(factors) > 1:
        mode = "embedded"
        if not (imaging["flags"] & np.uint64(CALIBRATION_AND_IMAGING)).any():
            mode = "separate"
        encoding.parallelImaging = xsd.parallelImagingType(
            accelerationFactor=acceleration(*factors),
            calibrationMode=xsd.calibrationModeType(mode),
        )
    frequency = _value(protocol, "sTXSPEC", "asNucleusInfo")[0]["lFrequency"]
    reference = _find(protocol, "FrameOfReference")
    position = str(_find(protocol, "tPatientPosition") or _find(protocol, "PatientPosition"))
    known = {member.value for member in xsd.patientPositionType}
    strength = _find(protocol, "flMagneticFieldStrength")
    return xsd.ismrmrdHeader(
        measurementInformation=xsd.measurementInformationType(
            measurementID=str(int(imaging["measurement_uid"][0])),
            patientPosition=xsd.patientPositionType(position if position in known else "HFS"),
            protocolName=protocol["MeasYaps"].get("tProtocolName"),
            frameOfReferenceUID=str(reference) if reference else None,
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="SIEMENS",
            systemModel=str(_find(protocol, "ManufacturersModelName") or "") or None,
            systemFieldStrength_T=None if strength is None else float(strength),
            relativeReceiverNoiseBandwidth=NOISE_BANDWIDTH,
            receiverChannels=int(imaging["active_channels"].max()),
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=frequency),
        encoding=[encoding],
        sequenceParameters=_sequence(protocol, int(imaging["idx"]["contrast"].max()) + 1),
    )


def _sequence(protocol: Any, contrasts: int) -> Any:
    """Times in ms, of Siemens' microseconds."""
    yaps = protocol["MeasYaps"]
    return xsd.sequenceParametersType(
        TR=[float(value) / 1000 for value in yaps.get("alTR", [])[:1]],
        TE=[float(value) / 1000 for value in yaps.get("alTE", [])[:contrasts]],
        flipAngle_deg=[float(value) for value in yaps.get("adFlipAngleDegree", [])[:1]],
    )


def _limit(
    name: str, what: str, imaging: npt.NDArray[Any], step: str, planned: int, user: int
) -> tuple[Any, int]:
    """Limits of an encode step and the size of its matrix."""
    steps = imaging["idx"][step].astype(int)
    own = imaging["flags"] & np.uint64(CALIBRATION) == 0  # a reference scan may count its own way
    center = int(
        np.bincount(imaging["idx"]["user"][own if own.any() else slice(None), user]).argmax()
    )
    first, last = int(steps.min()), int(steps.max())
    size = planned
    if last - first >= size:
        logger.warning(
            "%s: %d %s, where the protocol has %d: taken as they are",
            name, last + 1, what, planned,
        )  # fmt: skip
        size = last + 1
    if center == 0 and last > size // 2:  # left unset
        center = size // 2
    return xsd.limitType(minimum=first, maximum=last, center=min(max(center, first), last)), size


def _value(protocol: Any, *path: str) -> Any:
    """A value of the protocol in the scanner's own (ASCII) notation, None where it is not there."""
    found: Any = protocol["MeasYaps"]
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _find(protocol: Any, key: str) -> Any:
    """A value of the first of the other protocols that has it."""
    for section in ("Dicom", "Meas", "Config"):
        found = protocol.get(section, {}).get(key)
        if found not in (None, ""):
            return found
    return None
