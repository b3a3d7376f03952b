"""MRD v2 as v1: every field of the header, and readouts, waveforms and images with all theirs."""

import datetime
import io

import ismrmrd
import numpy as np
import pytest

from gadgets.protocol.mrd_v2.header import header_xml
from gadgets.protocol.mrd_v2.items import acquisition, image_v2, waveform, waveform_v2
from scoremri_core.errors import InputError
from scoremri_core.scans.header import parse_header

mrd = pytest.importorskip("mrd", reason="mrd-python is not installed")


def encoding():
    space = mrd.EncodingSpaceType(
        matrix_size=mrd.MatrixSizeType(x=64, y=48, z=1),
        field_of_view_mm=mrd.FieldOfViewMm(x=220.1, y=200, z=5),
    )
    limit = mrd.LimitType(minimum=0, maximum=47, center=24)
    return mrd.EncodingType(
        encoded_space=space,
        recon_space=space,
        encoding_limits=mrd.EncodingLimitsType(kspace_encoding_step_1=limit, user_3=limit),
        trajectory=mrd.Trajectory.GOLDENANGLE,
        parallel_imaging=mrd.ParallelImagingType(
            acceleration_factor=mrd.AccelerationFactorType(
                kspace_encoding_step_1=2, kspace_encoding_step_2=3
            ),
            calibration_mode=mrd.CalibrationMode.SEPARATE,
            interleaving_dimension=mrd.InterleavingDimension.REPETITION,
            multiband=mrd.MultibandType(
                spacing=[mrd.MultibandSpacingType(d_z=[1.5, 2.5])],
                calibration=mrd.Calibration.FULL_3D,
            ),
        ),
        echo_train_length=7,
    )


def header():
    parameters = mrd.UserParametersType(
        user_parameter_long=[mrd.UserParameterLongType(name="long", value=-5)],
        user_parameter_double=[mrd.UserParameterDoubleType(name="double", value=0.1)],
        user_parameter_base64=[mrd.UserParameterBase64Type(name="bytes", value="abc")],
    )
    return mrd.Header(
        version=2,
        subject_information=mrd.SubjectInformationType(
            patient_birthdate=datetime.date(1999, 12, 31), patient_gender=mrd.PatientGender.O
        ),
        study_information=mrd.StudyInformationType(
            study_time=mrd.Time.from_components(23, 59, 58, 5_000_000), accession_number=12
        ),
        measurement_information=mrd.MeasurementInformationType(
            patient_position=mrd.PatientPosition.F_FDL,
            measurement_dependency=[
                mrd.MeasurementDependencyType(dependency_type="Noise", measurement_id="m1")
            ],
        ),
        acquisition_system_information=mrd.AcquisitionSystemInformationType(
            system_field_strength_t=2.893620,
            relative_receiver_noise_bandwidth=float(np.float32(0.793)),
            coil_label=[mrd.CoilLabelType(coil_number=3, coil_name="HEA 3")],
        ),
        experimental_conditions=mrd.ExperimentalConditionsType(h1resonance_frequency_hz=123_456),
        encoding=[encoding(), encoding()],
        sequence_parameters=mrd.SequenceParametersType(
            t_r=[500.5], flip_angle_deg=[30.0, 60.0], echo_spacing=[0.5],
            diffusion_dimension=mrd.DiffusionDimension.USER_3,
        ),
        user_parameters=parameters,
        waveform_information=[
            mrd.WaveformInformationType(
                waveform_name="ecg", waveform_type=mrd.WaveformType.ECG, user_parameters=parameters
            )
        ],
    )  # fmt: skip


def test_every_kind_of_header_field_is_converted():
    out = parse_header(header_xml(header()), "a header")
    assert out.version is None  # of another schema
    assert str(out.subjectInformation.patientBirthdate) == "1999-12-31"
    assert out.subjectInformation.patientGender == "O"
    assert str(out.studyInformation.studyTime) == "23:59:58.005"
    assert out.studyInformation.accessionNumber == 12
    assert out.measurementInformation.patientPosition.value == "FFDL"
    (dependency,) = out.measurementInformation.measurementDependency
    assert (dependency.dependencyType, dependency.measurementID) == ("Noise", "m1")
    system = out.acquisitionSystemInformation
    assert system.relativeReceiverNoiseBandwidth == 0.793  # not .792999982833862
    assert (system.coilLabel[0].coilNumber, system.coilLabel[0].coilName) == (3, "HEA 3")
    assert out.experimentalConditions.H1resonanceFrequency_Hz == 123_456
    first, second = out.encoding
    assert first == second
    assert (first.encodedSpace.matrixSize.x, first.encodedSpace.matrixSize.y) == (64, 48)
    assert first.reconSpace.fieldOfView_mm.x == 220.1
    assert vars(first.encodingLimits.kspace_encoding_step_1) == {
        "minimum": 0,
        "maximum": 47,
        "center": 24,
    }
    assert first.encodingLimits.user_3.maximum == 47
    assert first.encodingLimits.slice is None
    assert first.trajectory.value == "goldenangle"
    parallel = first.parallelImaging
    assert vars(parallel.accelerationFactor) == {
        "kspace_encoding_step_1": 2,
        "kspace_encoding_step_2": 3,
    }
    assert parallel.calibrationMode.value == "separate"
    assert parallel.interleavingDimension.value == "repetition"
    assert parallel.multiband.spacing[0].dZ == [1.5, 2.5]
    assert parallel.multiband.calibration.value == "full3D"
    assert first.echoTrainLength == 7
    assert out.sequenceParameters.TR == [500.5]
    assert out.sequenceParameters.flipAngle_deg == [30, 60]
    assert out.sequenceParameters.diffusionDimension.value == "user_3"
    assert out.userParameters.userParameterLong[0].value == -5
    assert out.userParameters.userParameterDouble[0].value == 0.1
    assert out.userParameters.userParameterBase64[0].value == b"abc"
    assert out.waveformInformation[0].waveformType.value == "ecg"


def test_no_acceleration_is_omitted_in_version_1():
    scan = header()
    scan.encoding[0].parallel_imaging.calibration_mode = mrd.CalibrationMode.NOACCELERATION
    out = parse_header(header_xml(scan), "a header")
    assert out.encoding[0].parallelImaging.calibrationMode is None


def readout(samples=6):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2, samples)) + 1j * rng.normal(size=(2, samples))
    out = mrd.Acquisition(
        data=data.astype(np.complex64), trajectory=rng.normal(size=(3, samples)).astype(np.float32)
    )
    out.head.flags = mrd.AcquisitionFlags.IS_REVERSE | mrd.AcquisitionFlags.LAST_IN_SLICE
    out.head.idx.user = [4, 5]
    out.head.idx.slice = 3
    out.head.center_sample = 2
    out.head.user_int, out.head.user_float = [-1], [0.5]
    out.head.position = np.array([1, 2, 3], np.float32)
    return out


def test_a_readout_keeps_samples_trajectory_flags_and_counters():
    given = readout()
    out = acquisition(given)
    np.testing.assert_array_equal(out.data, given.data)
    np.testing.assert_array_equal(out.traj, given.trajectory.T)
    assert out.is_flag_set(ismrmrd.ACQ_IS_REVERSE)
    assert out.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE)
    assert not out.is_flag_set(ismrmrd.ACQ_FIRST_IN_SLICE)
    assert (out.idx.slice, out.idx.contrast, out.center_sample) == (3, 0, 2)
    assert list(out.idx.user)[:3] == [4, 5, 0]
    assert (out.user_int[0], out.user_float[0]) == (-1, 0.5)
    assert list(out.position) == [1, 2, 3]
    assert ismrmrd.Acquisition.deserialize_from(_bytes(out)).data.shape == (2, 6)


def _bytes(item):
    return io.BytesIO(item.to_bytes()).read


def test_times_of_both_versions_of_mrd_python():
    ticks = readout()
    vars(ticks.head).pop("acquisition_time_stamp_ns", None)
    vars(ticks.head).update(
        acquisition_time_stamp=7, physiology_time_stamp=[8, 9], sample_time_us=2.5
    )
    nanoseconds = readout()
    for name in ("acquisition_time_stamp", "physiology_time_stamp", "sample_time_us"):
        vars(nanoseconds.head).pop(name, None)
    vars(nanoseconds.head).update(
        acquisition_time_stamp_ns=7_000_000,
        physiology_time_stamp_ns=[8_000_000, 9_000_000],
        sample_time_ns=2500,
    )
    for out in map(acquisition, (ticks, nanoseconds)):
        assert (out.acquisition_time_stamp, out.sample_time_us) == (7, 2.5)
        assert list(out.physiology_time_stamp) == [8, 9, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: setattr(item.head.idx, "slice", 65_536), "slice 65536"),
        (lambda item: setattr(item.head, "center_sample", 70_000), "center_sample 70000"),
        (lambda item: vars(item).update(phase=np.zeros(6)), "array of phases"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    item = readout()
    change(item)
    with pytest.raises(InputError, match=message):
        acquisition(item)
    with pytest.raises(InputError, match="number_of_samples 65536"):
        acquisition(readout(65_536))


def test_waveforms_are_converted_and_back():
    given = ismrmrd.Waveform.from_array(np.arange(8, dtype=np.uint32).reshape(2, 4))
    given.time_stamp, given.waveform_id, given.sample_time_us = 11, 2, 2.5
    out = waveform(waveform_v2(mrd, given).value)
    np.testing.assert_array_equal(out.data, given.data)
    assert (out.time_stamp, out.waveform_id, out.sample_time_us) == (11, 2, 2.5)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.complex64])
def test_images_of_every_type_and_attribute_lists(kind):
    image = ismrmrd.Image.from_array(np.ones((3, 4), kind))
    image.image_type = ismrmrd.IMTYPE_PHASE
    image.attribute_string = ismrmrd.Meta({"one": "1", "two": ["a", "b"]}).serialize()
    item = image_v2(mrd, image)
    assert item.value.data.dtype == kind
    assert item.value.data.shape == (1, 1, 3, 4)
    assert item.value.head.image_type == mrd.ImageType.PHASE
    values = {name: [v.value for v in several] for name, several in item.value.meta.items()}
    assert values == {"one": ["1"], "two": ["a", "b"]}
