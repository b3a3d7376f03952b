"""Streams that `scoremri stream` cannot read: one sentence, and no end to what it wrote."""

import io
import struct

import pytest
from forked import run_forked
from ismrmrd.serialization import ProtocolSerializer
from mrd_streams import STREAMS, contents, simulated, version_1, version_2


def refused(data, *options):
    """Return the error message for invalid input."""
    done = run_forked("stream", "-p", "sampler=none", *options, data=data)
    assert done.returncode == 2
    log = done.stderr.decode().splitlines()
    assert not any("Traceback" in line for line in log)
    (sentence,) = [line for line in log if line.startswith("scoremri: ")]
    assert not done.stdout.endswith(struct.pack("<H", 4))
    return sentence


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("scan"))


@pytest.mark.parametrize("version", STREAMS)
def test_a_truncated_stream_is_reported(scan, version):
    data = STREAMS[version](scan)
    for length in (1, 3, 40, len(data) // 2, len(data) - 1):
        assert "ended before the scan did" in refused(data[:length]), length


def test_empty_and_invalid_input_is_reported(scan):
    assert "standard input is empty" in refused(b"")
    assert "expected an ISMRMRD header" in refused(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    assert "expected an ISMRMRD header" in refused(struct.pack("<H", 4))
    assert "MRD v2" in refused(b"yardlings" + bytes(1000))
    data = version_1(scan)
    header = struct.unpack("<I", data[2:6])[0] + 6
    assert "unknown message id 65535" in refused(data[:header] + b"\xff" * 5000)
    data = version_2(scan)
    assert "MRD v2 stream" in refused(data[:-20_000] + b"\xff" * 20_000)
    assert "MRD v2 stream" in refused(data[:20] + b"?" + data[21:])  # of another schema


def test_chain_and_properties_are_checked_before_reading():
    assert "unknown chain 'absent'" in refused(b"", "-c", "absent")
    assert "expected KEY=VALUE" in refused(b"", "-p", "sampler")
    assert "format 'v3'" in refused(b"", "--format", "v3")


def test_an_invalid_property_is_reported(scan):
    assert "unknown property 'colour'" in refused(version_1(scan), "-p", "colour=red")


def test_a_scan_without_images_is_reported(scan):
    header, items = contents(scan)
    stream = io.BytesIO()
    with ProtocolSerializer(stream) as serializer:
        serializer.serialize(header)
        for item in items[:1]:  # the noise scan
            serializer.serialize(item)
    assert "returned no image" in refused(stream.getvalue())
