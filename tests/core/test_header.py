"""Headers with values that are none: refused by name, or taken where the meaning is clear."""

import pytest
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.scans.header import parse_header
from scoremri_core.scans.simulation import SimulatedScan


@pytest.fixture(scope="module")
def document():
    return xsd.ToXML(SimulatedScan((32, 32), coils=2).header)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("<z>1</z>", "<z>35.9996</z>", r"matrixSize\.z '35\.9996': expected a whole number"),
        ("<maximum>31</maximum>", "<maximum>31.0</maximum>", r"maximum '31\.0': expected a whole"),
        ("<z>4.0</z>", "<z>4 mm</z>", r"fieldOfView_mm\.z '4 mm': expected a number"),
        (">cartesian<", ">zigzag<", "trajectory 'zigzag': expected cartesian, epi"),
        ("<patientPosition>HFS</patientPosition>", "", "lacks 'patientPosition' in measurementInf"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(document, before, after, told):
    assert before in document
    with pytest.raises(InputError, match=told) as error:
        parse_header(document.replace(before, after, 1), "scan.h5")
    assert str(error.value).startswith("scan.h5: ")


def test_names_of_an_enumeration_are_taken_in_any_case(document):
    header = parse_header(document.replace(">cartesian<", ">Cartesian<"), "scan.h5")
    assert header.encoding[0].trajectory is xsd.trajectoryType.CARTESIAN


def test_a_whole_header_comes_through_unchanged(document):
    assert xsd.ToXML(parse_header(document, "scan.h5")) == document


def test_what_is_no_header_is_told():
    with pytest.raises(InputError, match=r"scan\.h5: the ISMRMRD header lacks"):
        parse_header("<a/>", "scan.h5")
    with pytest.raises(InputError, match="not a valid ISMRMRD header"):
        parse_header("not XML", "scan.h5")
