"""ISMRMRD header from a Siemens protocol."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from ismrmrd import xsd

from scoremri_core.scans.flags import CALIBRATION, CALIBRATION_AND_IMAGING
from scoremri_core.scans.formats.array_scan import acceleration

logger = logging.getLogger(__name__)

NOISE_BANDWIDTH = 0.79  # relative, of Siemens receivers; the protocol does not have it
# lengths of the Fourier transform of the scanner; lines and oversampling only estimate them
LINES = ("iPEFTLenWithout2DInterpolation", "iPEFTLength")
PARTITIONS = ("i3DFTLength",)


def header_of(name: str, protocol: Any, imaging: npt.NDArray[Any]) -> xsd.ismrmrdHeader:
    """Make an ISMRMRD header of a protocol; readouts override it.

    Parameters
    ----------
    name : str
        For messages.
    protocol : dict
        As from twixtools.
    imaging : structured array, (acquisition,)
        Headers of the imaging readouts.

    Returns
    -------
    ismrmrdHeader
    """
    factor = float(_find(protocol, "flReadoutOSFactor") or 2)
    is_volume = value(protocol, "sKSpace", "ucDimension") == 4 and (
        int(imaging["idx"]["kspace_encode_step_2"].max()) > 0
    )
    one = value(protocol, "sSliceArray", "asSlice")[0]
    base = int(value(protocol, "sKSpace", "lBaseResolution"))
    nx = round(base * factor)
    samples = int((imaging["number_of_samples"] - imaging["discard_pre"]).max())
    if samples > nx:
        logger.warning(
            "%s: readouts have %d samples, the protocol %d; using the former",
            name, samples, nx,
        )  # fmt: skip
        nx = samples
    over = float(value(protocol, "sKSpace", "dPhaseOversamplingForDialog") or 0)
    over_z = float(value(protocol, "sKSpace", "dSliceOversamplingForDialog") or 0)
    planned = round(int(value(protocol, "sKSpace", "lPhaseEncodingLines")) * (1 + over))
    lines, ny = _limit(
        name, "lines", imaging, "kspace_encode_step_1", planned, _length(protocol, LINES), 5
    )
    planned, length = 1, 0
    if is_volume:
        planned = round(int(value(protocol, "sKSpace", "lPartitions") or 1) * (1 + over_z))
        length = _length(protocol, PARTITIONS)
    partitions, nz = _limit(name, "partitions", imaging, "kspace_encode_step_2", planned, length, 6)
    fov = float(one["dReadoutFOV"]), float(one["dPhaseFOV"]), float(one["dThickness"])

    def space(matrix: tuple[int, ...], sides: tuple[float, ...]) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", matrix, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", sides, strict=True))),
        )

    # square pixels at any phase resolution
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
    steps = (value(protocol, "sPat", key) or 1 for key in ("lAccelFactPE", "lAccelFact3D"))
    factors = [int(step) for step in steps]
    if max(factors) > 1:
        mode = "embedded"
        if not (imaging["flags"] & np.uint64(CALIBRATION_AND_IMAGING)).any():
            mode = "separate"
        encoding.parallelImaging = xsd.parallelImagingType(
            accelerationFactor=acceleration(*factors),
            calibrationMode=xsd.calibrationModeType(mode),
        )
    frequency = value(protocol, "sTXSPEC", "asNucleusInfo")[0]["lFrequency"]
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


def _sequence(protocol: Any, contrasts: int) -> xsd.sequenceParametersType:
    """Make the sequence parameters; times of the protocol are in microseconds."""
    yaps = protocol["MeasYaps"]
    return xsd.sequenceParametersType(
        TR=[float(time) / 1000 for time in yaps.get("alTR", [])[:1]],
        TE=[float(time) / 1000 for time in yaps.get("alTE", [])[:contrasts]],
        flipAngle_deg=[float(angle) for angle in yaps.get("adFlipAngleDegree", [])[:1]],
    )


def _limit(
    name: str,
    what: str,
    imaging: npt.NDArray[Any],
    step: str,
    planned: int,
    length: int,
    user: int,
) -> tuple[Any, int]:
    """Return the limits of an encode step and its matrix size, including unsampled lines.

    The size is the length of the Fourier transform of the scanner, if known. Partial Fourier,
    GRAPPA and a lower phase resolution leave lines of the matrix unsampled.
    """
    steps = imaging["idx"][step].astype(int)
    selected = imaging["flags"] & np.uint64(CALIBRATION) == 0  # a reference scan may differ
    centers = imaging["idx"]["user"][selected if selected.any() else slice(None), user]
    center = int(np.bincount(centers).argmax())
    first, last = int(steps.min()), int(steps.max())
    count = planned if last - first < planned else last + 1
    size = length or planned
    if last - first >= size:
        logger.warning(
            "%s: the scan has %d %s, the protocol %d; using the former",
            name, last + 1, what, size,
        )  # fmt: skip
        size = last + 1
    if center == 0 and last > count // 2:  # not set
        center = count // 2
    return xsd.limitType(minimum=first, maximum=last, center=min(max(center, first), last)), size


def _length(protocol: Any, keys: tuple[str, ...]) -> int:
    """Return the first of these values that the protocol has, else 0."""
    return next((int(length) for key in keys if (length := _find(protocol, key))), 0)


def value(protocol: Any, *path: str) -> Any:
    """Look up a value of the ASCII (MeasYaps) protocol by its path; None if missing."""
    found: Any = protocol["MeasYaps"]
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _find(protocol: Any, key: str) -> Any:
    """Look up a value in the other protocols; None if missing."""
    for section in ("Dicom", "Meas", "Config"):
        found = protocol.get(section, {}).get(key)
        if found not in (None, ""):
            return found
    return None
