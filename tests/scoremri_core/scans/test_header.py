"""Invalid values and character encodings of headers."""

import pytest
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.scans.header import parse_header
from scoremri_core.simulation.simulation import SimulatedScan


@pytest.fixture(scope="module")
def document():
    return xsd.ToXML(SimulatedScan((32, 32), coils=2).header)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("<z>1</z>", "<z>35.9996</z>", r"matrixSize\.z '35\.9996': expected a whole number"),
        ("<maximum>31</maximum>", "<maximum>31.0</maximum>", r"maximum '31\.0': expected a whole"),
        ("<z>4.0</z>", "<z>4 mm</z>", r"fieldOfView_mm\.z '4 mm': expected a number"),
        (">cartesian<", ">zigzag<", "trajectory 'zigzag': expected cartesian, epi"),
        ("<patientPosition>HFS</patientPosition>", "", "lacks 'patientPosition' in measurementInf"),
    ],
)
def test_error_names_the_field_and_its_value(document, before, after, message):
    assert before in document
    with pytest.raises(InputError, match=message) as error:
        parse_header(document.replace(before, after, 1), "scan.h5")
    assert str(error.value).startswith("scan.h5: ")


def test_names_of_enumerations_are_case_insensitive(document):
    header = parse_header(document.replace(">cartesian<", ">Cartesian<"), "scan.h5")
    assert header.encoding[0].trajectory is xsd.trajectoryType.CARTESIAN


def test_valid_header_is_unchanged(document):
    assert xsd.ToXML(parse_header(document, "scan.h5")) == document


def test_other_documents_are_refused():
    with pytest.raises(InputError, match=r"scan\.h5: the ISMRMRD header lacks"):
        parse_header("<a/>", "scan.h5")
    with pytest.raises(InputError, match="not a valid ISMRMRD header"):
        parse_header("not XML", "scan.h5")


MARKED = '<?xml version="1.0" encoding="{}"?>\n'
NAME = "Schädel"  # in all of these encodings


def named(document, encoding):
    """Return a header with an umlaut that declares an encoding."""
    body = document.split("?>", 1)[1].replace("head phantom t2", NAME)
    return (MARKED.format(encoding) if encoding else "") + body


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        (None, "utf-8"),
        ("UTF-8", "utf-8"),
        ("US-ASCII", "utf-8"),
        ("utf-8", "utf-8-sig"),
        ("ISO-8859-1", "latin-1"),
        ("iso-8859-15", "iso-8859-15"),
        ("Windows-1252", "cp1252"),
        ("UTF-16", "utf-16"),
        ("UTF-16", "utf-16-be"),
        (None, "utf-16"),
    ],
)
@pytest.mark.parametrize("end", ["", "\0"])
def test_declared_encoding_is_used(document, declared, codec, end):
    content = (named(document, declared) + end).encode(codec)
    if codec == "utf-16-be":
        content = b"\xfe\xff" + content
    for tail in (b"", b"\0") if end else (b"",):
        header = parse_header(content + tail, "scan.h5")
        assert header.measurementInformation.protocolName == NAME


def test_declared_encoding_of_text_is_ignored(document):
    header = parse_header(named(document, "ISO-8859-1"), "scan.h5")
    assert header.measurementInformation.protocolName == NAME


def test_name_in_an_undeclared_encoding_is_no_error(document):
    header = parse_header(named(document, None).encode("latin-1"), "scan.h5")
    assert header.measurementInformation.protocolName == "Sch\ufffddel"


@pytest.mark.parametrize("encoding", ["punycode", "zlib", "EBCDIC", "iso-8859-99", "utf-7"])
def test_unknown_encoding_is_named(document, encoding):
    with pytest.raises(InputError, match=rf"scan\.h5: unknown encoding '{encoding}'"):
        parse_header(named(document, encoding).encode("utf-8"), "scan.h5")


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "latin-1"])
def test_doctype_is_refused_in_any_encoding(document, codec):
    head, body = named(document, codec).split("?>", 1)
    content = f'{head}?><!DOCTYPE a [<!ENTITY x "y">]>{body}'.encode(codec)
    with pytest.raises(InputError, match="DOCTYPE"):
        parse_header(content, "scan.h5")
