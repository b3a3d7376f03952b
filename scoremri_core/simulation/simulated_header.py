"""ISMRMRD header of a simulated scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ismrmrd import xsd

if TYPE_CHECKING:
    from scoremri_core.simulation.simulation import SimulatedScan


def simulated_header(
    scan: SimulatedScan, noise_bandwidth: float, thickness: float
) -> xsd.ismrmrdHeader:
    """Make the ISMRMRD header of a simulated scan.

    Parameters
    ----------
    scan : SimulatedScan
    noise_bandwidth : float
        Relative receiver noise bandwidth.
    thickness : float
        Of a slice in mm.

    Returns
    -------
    ismrmrdHeader
    """
    ny, nx = scan.matrix
    depth = scan.partitions * scan.spacing if scan.partitions > 1 else thickness

    def space(matrix: tuple[int, int], y: float, x: float) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=matrix[1], y=matrix[0], z=scan.partitions),
            fieldOfView_mm=xsd.fieldOfViewMm(x=x * scan.pixel[1], y=y * scan.pixel[0], z=depth),
        )

    def limit(count: int, center: int = 0) -> Any:
        return xsd.limitType(minimum=0, maximum=count - 1, center=center)

    encoded = scan.lines, nx * scan.oversampling
    # Gadgetron stores noise scans by subject, and reads an ID of four parts as device, subject,
    # session and measurement.
    subject = f"phantom{scan.seed}"
    return xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientID=subject),
        measurementInformation=xsd.measurementInformationType(
            measurementID=f"simulation_{subject}_1_1",
            patientPosition=xsd.patientPositionType.HFS,
            protocolName=f"head phantom {scan.contrast}",
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="scoremri",
            systemModel="simulation",
            relativeReceiverNoiseBandwidth=noise_bandwidth,
            receiverChannels=scan.coils,
            coilLabel=[
                xsd.coilLabelType(coilNumber=i, coilName=f"loop {i + 1}") for i in range(scan.coils)
            ],
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        encoding=[
            xsd.encodingType(
                encodedSpace=space(encoded, *encoded),
                reconSpace=space(scan.recon_matrix or scan.matrix, ny, nx),
                encodingLimits=xsd.encodingLimitsType(
                    kspace_encoding_step_1=limit(scan.lines, scan.lines // 2),
                    kspace_encoding_step_2=limit(scan.partitions, scan.partitions // 2),
                    slice=limit(scan.slices),
                    contrast=limit(len(scan.contrasts)),
                    phase=limit(scan.phases),
                    repetition=limit(scan.repetitions),
                    set=limit(scan.sets),
                    average=limit(scan.averages),
                    segment=limit(scan.segments),
                ),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
    )
