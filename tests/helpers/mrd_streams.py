"""MRD streams of both versions, written and read by the libraries of each."""

import io

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

from gadgets.commands.simulate import simulate
from scoremri_core.scans.files import open_scan, write_scan

mrd = pytest.importorskip("mrd", reason="mrd-python is not installed")


def simulated(folder):
    """Write a simulated scan with a noise scan, two waveforms and a subject; return its path."""
    simulate(folder / "bare.h5", matrix="32", coils=3, acceleration=2.0, calibration=12)
    with open_scan(folder / "bare.h5") as scan:
        header, readouts = scan.header, list(scan)
    for i, readout in enumerate(readouts):
        readout.acquisition_time_stamp = 10 * i
    header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth = 0.793
    header.subjectInformation = xsd.subjectInformationType(patientID="p1", patientGender="F")
    header.studyInformation = xsd.studyInformationType(
        studyTime=xsd.ismrmrdschema.ismrmrd.XmlTime(12, 34, 56, 789_000_000)
    )
    waves = []
    for start in (15, 10**6):
        wave = ismrmrd.Waveform.from_array(np.arange(8, dtype=np.uint32).reshape(2, 4))
        wave.time_stamp = start
        waves.append(wave)
    path = folder / "scan.h5"
    write_scan(path, header, readouts, waveforms=waves)
    return path


def contents(path):
    """Return header and items of a scan in order of time."""
    with open_scan(path) as scan:
        items = sorted(
            [*scan, *scan.waveforms()],
            key=lambda item: (
                item.time_stamp
                if isinstance(item, ismrmrd.Waveform)
                else item.acquisition_time_stamp
            ),
        )
        return scan.header, items


def version_1(path, *configurations):
    """Serialize a scan with ismrmrd."""
    header, items = contents(path)
    stream = io.BytesIO()
    with ProtocolSerializer(stream) as serializer:
        for item in (*configurations, header, *items):
            serializer.serialize(item)
    return stream.getvalue()


def version_2(path):
    """Serialize a scan with mrd, each field set by name."""
    header, items = contents(path)
    stream = io.BytesIO()
    with mrd.BinaryMrdWriter(stream) as writer:
        writer.write_header(header_2(header))
        writer.write_data(list(map(item_2, items)))
    return stream.getvalue()


def header_2(header):
    (encoding,) = header.encoding
    limits, parallel = encoding.encodingLimits, encoding.parallelImaging

    def space(one):
        return mrd.EncodingSpaceType(
            matrix_size=mrd.MatrixSizeType(**vars(one.matrixSize)),
            field_of_view_mm=mrd.FieldOfViewMm(**vars(one.fieldOfView_mm)),
        )

    out = mrd.Header(
        subject_information=mrd.SubjectInformationType(
            patient_id="p1", patient_gender=mrd.PatientGender.F
        ),
        study_information=mrd.StudyInformationType(
            study_time=mrd.Time.from_components(12, 34, 56, 789_000_000)
        ),
        acquisition_system_information=mrd.AcquisitionSystemInformationType(
            relative_receiver_noise_bandwidth=0.793
        ),
    )
    out.experimental_conditions.h1resonance_frequency_hz = (
        header.experimentalConditions.H1resonanceFrequency_Hz
    )
    out.encoding = [
        mrd.EncodingType(
            encoded_space=space(encoding.encodedSpace),
            recon_space=space(encoding.reconSpace),
            encoding_limits=mrd.EncodingLimitsType(
                **{
                    name: mrd.LimitType(**vars(limit))
                    for name, limit in vars(limits).items()
                    if limit is not None
                }
            ),
            trajectory=mrd.Trajectory.CARTESIAN,
            parallel_imaging=mrd.ParallelImagingType(
                acceleration_factor=mrd.AccelerationFactorType(**vars(parallel.accelerationFactor)),
                calibration_mode=mrd.CalibrationMode[parallel.calibrationMode.name],
            ),
        )
    ]
    return out


def set_time(item, name, ticks):
    """Set a time: ticks of 1 ms in mrd-python 2.1, nanoseconds in 2.2."""
    if hasattr(item, name):
        setattr(item, name, ticks)
    else:
        setattr(item, f"{name}_ns", 10**6 * ticks)


def item_2(item):
    head = item.getHead()
    if isinstance(item, ismrmrd.Waveform):
        out = mrd.WaveformUint32(data=item.data)
        set_time(out, "time_stamp", head.time_stamp)
        return mrd.StreamItem.WaveformUint32(out)
    out = mrd.Acquisition(data=item.data)
    out.head.flags = mrd.AcquisitionFlags(head.flags)
    counters = ("slice", "contrast", "phase", "repetition", "set", "average", "segment")
    for name in ("kspace_encode_step_1", "kspace_encode_step_2", *counters):
        setattr(out.head.idx, name, getattr(head.idx, name))
    for name in ("measurement_uid", "scan_counter", "center_sample"):
        setattr(out.head, name, getattr(head, name))
    set_time(out.head, "acquisition_time_stamp", head.acquisition_time_stamp)
    for name in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position"):
        setattr(out.head, name, np.array(getattr(head, name), np.float32))
    if hasattr(out.head, "sample_time_us"):
        out.head.sample_time_us = head.sample_time_us
    else:
        out.head.sample_time_ns = round(1000 * head.sample_time_us)
    return mrd.StreamItem.Acquisition(out)


STREAMS = {"v1": version_1, "v2": version_2}


def images_1(data):
    stream = io.BytesIO(data)
    items = list(ProtocolDeserializer(stream).deserialize())
    assert not stream.read(), "data after CLOSE"
    return items


def images_2(data):
    with mrd.BinaryMrdReader(io.BytesIO(data)) as reader:
        assert reader.read_header() is not None
        return [item.value for item in reader.read_data()]
