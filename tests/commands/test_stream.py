"""`scoremri stream` through the pipes of real processes."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd
from ismrmrd.serialization import (
    ConfigFile,
    ConfigText,
    ProtocolDeserializer,
    ProtocolSerializer,
)

from gadgets.commands.simulate import simulate
from scoremri_core.scans.files import open_scan, write_scan

mrd = pytest.importorskip("mrd", reason="mrd-python is not installed")

PROGRAM = [sys.executable, "-m", "scoremri_core", "stream"]
QUICK = ("-p", "samples=2", "-p", "steps=3", "-p", "device=cpu")
VERSIONS = ("v1", "v2")
PATIENCE = 100  # seconds, of a process that should have ended


def run(data, *options, program=PROGRAM, **environment):
    """Exit code, standard output and the lines of standard error."""
    done = subprocess.run(
        [*program, *options],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


def refused(data, *options, **environment):
    """The one sentence, beside the log, on input that is refused."""
    code, out, told = run(data, *QUICK, *options, **environment)
    assert code == 2
    assert not any("Traceback" in line for line in told)
    (sentence,) = [line for line in told if line.startswith("scoremri: ")]
    assert not out.endswith(struct.pack("<H", 4))
    return sentence


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A simulated scan with its noise scan, two waveforms and a subject."""
    folder = tmp_path_factory.mktemp("scan")
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
    """Header and items of a scan, waveforms where the times of all say."""
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
    """The scan as ISMRMRD's own serializer writes it."""
    header, items = contents(path)
    stream = io.BytesIO()
    with ProtocolSerializer(stream) as serializer:
        for item in (*configurations, header, *items):
            serializer.serialize(item)
    return stream.getvalue()


def version_2(path):
    """The scan as mrd's own writer writes it, each field set by its name."""
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
    """mrd-python 2.1 counts ticks, of a millisecond as its tools have it; 2.2 nanoseconds."""
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
    assert not stream.read(), "something comes after CLOSE"
    return items


def images_2(data):
    with mrd.BinaryMrdReader(io.BytesIO(data)) as reader:
        assert reader.read_header() is not None
        return [item.value for item in reader.read_data()]


@pytest.fixture(scope="module")
def replayed(scan):
    """Images of `replay` of the same file, by series."""
    out = scan.with_name("replayed.h5")
    arguments = ["replay", str(scan), "-o", str(out), *QUICK]
    subprocess.run([*PROGRAM[:-1], *arguments], check=True, capture_output=True)
    with ismrmrd.Dataset(str(out), mode="r") as dataset:
        return [dataset.read_image(f"image_{series}", 0) for series in (1, 2)]


def test_version_1_gives_the_images_of_replay(scan, replayed):
    code, out, told = run(version_1(scan), *QUICK)
    assert code == 0, told
    images = images_1(out)
    assert [image.image_series_index for image in images] == [1, 2]
    for image, expected in zip(images, replayed, strict=True):
        np.testing.assert_array_equal(image.data, expected.data)
        assert bytes(image.getHead()) == bytes(expected.getHead())
        assert image.meta["DataRole"] == expected.meta["DataRole"]


def test_version_2_gives_the_images_of_replay(scan, replayed):
    code, out, told = run(version_2(scan), *QUICK)
    assert code == 0, told
    images = images_2(out)
    assert len(images) == 2
    for image, expected in zip(images, replayed, strict=True):
        np.testing.assert_array_equal(image.data, expected.data)
        head, other = image.head, expected.getHead()
        assert head.image_type == mrd.ImageType.MAGNITUDE
        for name in ("image_series_index", "image_index", "slice"):
            assert getattr(head, name) == getattr(other, name)
        wanted = mrd.ImageHeader(image_type=mrd.ImageType.MAGNITUDE)
        set_time(wanted, "acquisition_time_stamp", other.acquisition_time_stamp)
        for name in {"acquisition_time_stamp", "acquisition_time_stamp_ns"} & set(vars(wanted)):
            assert getattr(head, name) == getattr(wanted, name) > 0
        for name in ("field_of_view", "position", "slice_dir", "patient_table_position"):
            np.testing.assert_array_equal(getattr(head, name), list(getattr(other, name)))
        np.testing.assert_array_equal(head.col_dir, list(other.read_dir))
        np.testing.assert_array_equal(head.line_dir, list(other.phase_dir))
        assert [v.value for v in image.meta["sampler"]] == [expected.meta["sampler"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_may_be_named(scan, version):
    data = STREAMS[version](scan)
    code, out, _ = run(data, "-p", "sampler=none", "--format", version)
    assert code == 0
    assert (out[:5] == b"yardl") == (version == "v2")
    (other,) = set(VERSIONS) - {version}
    assert run(data, "--format", other)[0] == 2


def test_the_log_goes_to_standard_error_and_so_does_what_a_library_prints(scan, tmp_path):
    (tmp_path / "loud.py").write_text(
        "from gadgets.score_recon import reconstruct_acquisitions\n"
        "def target(connection):\n"
        "    print('printed by a library', flush=True)\n"
        "    reconstruct_acquisitions(connection)\n"
    )
    chain = tmp_path / "loud.xml"
    chain.write_text(
        "<configuration><version>2</version><stream><external>"
        '<execute name="loud" target="target" type="python"/>'
        "<configuration/></external></stream></configuration>"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code, out, told = run(version_1(scan), "-c", chain, "-p", "sampler=none", PYTHONPATH=path)
    assert code == 0
    assert images_1(out)
    assert "printed by a library" in told
    assert any("images sent" in line for line in told)


def test_a_chain_in_the_stream_is_passed_over_and_told(scan):
    data = version_1(scan, ConfigFile("default.xml"), ConfigText("<configuration/>"))
    code, out, told = run(data, "-p", "sampler=none")
    assert code == 0
    assert images_1(out)
    assert any("names the chain 'default.xml', which is not read" in line for line in told)


def test_images_come_before_the_scan_ends(scan):
    """A frame is sent while the pipe is still open: nothing waits for its end."""
    with subprocess.Popen(
        [*PROGRAM, "-p", "sampler=none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        process.stdin.write(version_1(scan)[:-2])
        process.stdin.flush()
        items = ProtocolDeserializer(process.stdout).deserialize()
        assert next(items).image_series_index == 1
        process.stdin.write(struct.pack("<H", 4))
        process.stdin.close()
        assert not list(items)  # a classical image has no standard deviation
        assert process.wait(PATIENCE) == 0
        guard.cancel()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stream_that_is_cut_short_is_told(scan, version):
    data = STREAMS[version](scan)
    for length in (1, 3, 40, len(data) // 2, len(data) - 1):
        assert "ended before the scan did" in refused(data[:length]), length


def test_nothing_and_garbage_are_told(scan):
    assert "standard input is empty" in refused(b"")
    assert "expected an ISMRMRD header" in refused(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    assert "expected an ISMRMRD header" in refused(struct.pack("<H", 4))
    assert "MRD v2" in refused(b"yardlings" + bytes(1000))
    data = version_1(scan)
    header = struct.unpack("<I", data[2:6])[0] + 6
    assert "a message with id 65535 came" in refused(data[:header] + b"\xff" * 5000)
    data = version_2(scan)
    assert "MRD v2 stream" in refused(data[:-20_000] + b"\xff" * 20_000)
    assert "MRD v2 stream" in refused(data[:20] + b"?" + data[21:])  # of another schema


def test_a_bad_chain_and_a_bad_property_are_told_before_anything_is_read():
    assert "unknown chain 'absent'" in refused(b"", "-c", "absent")
    assert "expected KEY=VALUE" in refused(b"", "-p", "sampler")
    assert "format 'v3'" in refused(b"", "--format", "v3")


def test_a_bad_property_is_told(scan):
    assert "unknown property 'colour'" in refused(version_1(scan), "-p", "colour=red")


def test_a_scan_without_an_image_is_told(scan):
    header, items = contents(scan)
    stream = io.BytesIO()
    with ProtocolSerializer(stream) as serializer:
        serializer.serialize(header)
        for item in items[:1]:  # the noise scan
            serializer.serialize(item)
    assert "no image came back" in refused(stream.getvalue())


def test_a_missing_mrd_is_one_sentence(scan, tmp_path):
    (tmp_path / "mrd.py").write_text("raise ImportError('not here')")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    told = refused(version_2(scan), PYTHONPATH=path)
    assert told.endswith("needs the package mrd-python: pip install 'scoremri[mrd]'")
    assert run(version_1(scan), "-p", "sampler=none", PYTHONPATH=path)[0] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reader_that_goes_away_is_told(scan, version):
    with subprocess.Popen(
        [*PROGRAM, "-p", "sampler=none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        process.stdin.write(STREAMS[version](scan))
        process.stdin.close()
        told = process.stderr.read().decode().splitlines()
        assert process.wait(PATIENCE) == 2
    assert "scoremri: standard output was closed by its reader before the last image" in told
    assert not any("Traceback" in line or "Exception" in line for line in told)


@pytest.mark.parametrize("sent", [0, 10_000], ids=["before the header", "in the scan"])
def test_an_interrupt_ends_it(scan, sent):
    with subprocess.Popen(
        [*PROGRAM, "-p", "sampler=none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # whatever started the tests may ignore it, as a shell makes its background do
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdin.write(version_1(scan)[:sent])
        process.stdin.flush()
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 130
    assert told.endswith("scoremri: interrupted\n")


def test_a_terminal_is_refused():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(PROGRAM, stdin=theirs, capture_output=True, timeout=PATIENCE)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"standard input is a terminal" in done.stderr
