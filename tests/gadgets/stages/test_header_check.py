"""Contradictions between header and data: the data are used, with one warning."""

import logging

import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, header, letter, parsed

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError

SHAPE = (24, 20)
IMAGE = letter(*SHAPE)
PLAIN = header(*SHAPE)
STEP_2 = (
    "<kspace_encoding_step_2><minimum>0</minimum><maximum>{}</maximum><center>{}</center>"
    "</kspace_encoding_step_2><average>"
)


def frames(readouts, xml=PLAIN):
    return list(accumulate(iter(readouts), parsed(xml), Properties()))


def logged(caplog, words, level=logging.WARNING):
    return [r for r in caplog.records if words in r.getMessage() and r.levelno == level]


def with_encoding(xml, other):
    """Append the encoding of another header."""
    start, end = other.index("  <encoding>"), other.index("</ismrmrdHeader>")
    return xml.replace("</ismrmrdHeader>", other[start:end] + "</ismrmrdHeader>")


def navigators(count=4, **counters):
    """Return lines of a second encoding space."""
    lines = acquisitions(letter(8, 12), steps=range(count), last=False, **counters)
    for line in lines:
        line.encoding_space_ref = 1
    return lines


AUXILIARY = {
    "Cartesian": header(8, 12),
    "spiral": header(8, 12, trajectory="spiral"),
    "without a size": header(8, 12, fx=0, fy=0),
}


@pytest.mark.parametrize("kind", AUXILIARY)
@pytest.mark.parametrize("last", [False, True])
def test_readouts_of_another_encoding_are_ignored(kind, last, caplog):
    extra = navigators(slice=0)
    if last:
        extra[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    one, two = acquisitions(IMAGE, slice=0), acquisitions(IMAGE, slice=1)
    xml = with_encoding(PLAIN, AUXILIARY[kind])
    found = frames([*one[:9], *extra, *one[9:], *navigators(slice=1), *two], xml)
    plain = frames([*one, *two])
    assert [frame.header.idx.slice for frame in found] == [0, 1]
    for frame, expected in zip(found, plain, strict=True):
        np.testing.assert_array_equal(frame.kspace.array, expected.kspace.array)
        assert frame.problem is None
    assert len(logged(caplog, "encoding space 1 are ignored")) == 1


def test_reference_scan_on_a_non_cartesian_grid_is_ignored_with_a_warning(caplog):
    reference = navigators()
    for line in reference:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    xml = with_encoding(header(*SHAPE, mode="external"), header(8, 12, trajectory="spiral"))
    (frame,) = frames([*reference, *acquisitions(IMAGE)], xml)
    assert frame.kspace.calibration is None
    assert frame.problem is None
    assert len(logged(caplog, "encoding space 1 are ignored: encoding 1 of the ISMRMRD")) == 1


def test_non_imaging_readouts_are_reported_once(caplog):
    extra = navigators()
    for line in extra:
        line.encoding_space_ref = 0
        line.set_flag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
    with caplog.at_level("INFO"):
        (frame,) = frames([*extra, *acquisitions(IMAGE), *extra])
    np.testing.assert_array_equal(frame.kspace.array, frames(acquisitions(IMAGE))[0].kspace.array)
    assert len(logged(caplog, "Readouts of navigation data are ignored", logging.INFO)) == 1


def test_channels_of_the_data_override_the_header(caplog):
    xml = PLAIN.replace(
        "<relativeReceiver", "<receiverChannels>32</receiverChannels><relativeReceiver"
    )
    found = frames(acquisitions(IMAGE, slice=0) + acquisitions(IMAGE, slice=1), xml)
    assert [frame.kspace.coils for frame in found] == [4, 4]
    assert len(logged(caplog, "declares 32 receiver channels, readouts have 4")) == 1
    caplog.clear()
    frames(acquisitions(IMAGE), xml.replace(">32<", ">4<"))
    assert not caplog.records


def test_steps_beyond_their_limits_are_used_with_a_warning(caplog):
    (frame,) = frames(acquisitions(IMAGE), header(*SHAPE, last=19))
    assert frame.kspace.array.any(axis=(0, 2)).all()
    assert len(logged(caplog, "limits kspace_encode_step_1 to 0..19, a readout has 20")) == 1


def test_partitions_without_a_3d_header_are_a_problem():
    lines = [r for z in range(3) for r in acquisitions(IMAGE, kspace_encode_step_2=z)[:-1]]
    (frame,) = frames(lines)
    assert frame.problem == "readouts of 3 partitions, the header has one"


def test_incomplete_volume_is_reported(caplog):
    xml = header(*SHAPE, ez=8).replace("<average>", STEP_2.format(7, 4))
    lines = [r for z in range(3) for r in acquisitions(IMAGE, last=False, kspace_encode_step_2=z)]
    (frame,) = frames(lines, xml)
    assert frame.kspace.values.shape == (4, 8, *SHAPE)
    assert len(logged(caplog, "has 72 of the 192 lines that the header declares")) == 1


@pytest.mark.parametrize("size", ["0", "-5", "INF", "NaN"])
def test_invalid_field_of_view_is_refused(size):
    with pytest.raises(InputError, match="fieldOfView_mm"):
        frames(acquisitions(IMAGE), header(*SHAPE, fx=size))
