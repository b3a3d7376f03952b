"""Matrix of Siemens raw data, from the protocol and against another reader."""

import re

import numpy as np
import pytest
from ismrmrd.hdf5 import acquisition_header_dtype

from scoremri_core.scans.flags import CALIBRATION_AND_IMAGING
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.formats.siemens_protocol import header_of
from scoremri_core.scans.gridding import zero_filled_kspace

GRE = "siemens_twix_gre.dat"


def protocol(lines, length=None, without=None, over=0.0, pat=1, dimension=2, partitions=1, depth=0):
    """Return a protocol as of twixtools, of 128 samples over 256 x 256 mm."""
    yaps = {
        "sKSpace": {
            "lBaseResolution": 128,
            "lPhaseEncodingLines": lines,
            "lPartitions": partitions,
            "ucDimension": dimension,
            "dPhaseOversamplingForDialog": over,
        },
        "sSliceArray": {
            "asSlice": [{"dReadoutFOV": 256.0, "dPhaseFOV": 256.0, "dThickness": 64.0}]
        },
        "sTXSPEC": {"asNucleusInfo": [{"lFrequency": 123_000_000}]},
        "sPat": {"lAccelFactPE": pat, "lAccelFact3D": 1},
    }
    lengths = {
        "iPEFTLength": length,
        "iPEFTLenWithout2DInterpolation": without,
        "i3DFTLength": depth or None,
    }
    meas = {key: "" if value is None else float(value) for key, value in lengths.items()}
    return {"MeasYaps": yaps, "Meas": meas, "Dicom": {}, "Config": {}}


def readouts(lines, center, partitions=(0,), flagged=()):
    heads = np.zeros(len(lines) * len(partitions), acquisition_header_dtype)
    heads["number_of_samples"] = 256
    heads["idx"]["kspace_encode_step_1"] = np.tile(lines, len(partitions))
    heads["idx"]["kspace_encode_step_2"] = np.repeat(partitions, len(lines))
    heads["idx"]["user"][:, 5] = center
    heads["idx"]["user"][:, 6] = len(partitions) // 2
    heads["flags"][np.isin(heads["idx"]["kspace_encode_step_1"], flagged)] = CALIBRATION_AND_IMAGING
    return heads


WHOLE, GRAPPA = range(128), sorted({*range(0, 128, 2), *range(52, 76)})
CASES = {  # protocol, readouts, lines of the matrix, first, centre and last line
    "whole": (protocol(128, 128), readouts(WHOLE, 64), (128, 0, 64, 127)),
    "unknown length": (protocol(128), readouts(WHOLE, 64), (128, 0, 64, 127)),
    "partial Fourier": (protocol(128, 128), readouts(range(32, 128), 64), (128, 32, 64, 127)),
    "partial Fourier from 0": (protocol(128, 128), readouts(range(96), 32), (128, 0, 32, 95)),
    "GRAPPA": (protocol(128, 128, pat=2), readouts(GRAPPA, 64, (0,), range(52, 76)),
               (128, 0, 64, 126)),
    # a sequence rounds 128 x 1.13 up to an even number
    "oversampling": (protocol(128, 146, over=0.13), readouts(range(146), 73), (146, 0, 73, 145)),
    # zero-filled to square pixels
    "resolution of 75 %": (protocol(96, 128), readouts(range(96), 48), (128, 0, 48, 95)),
    "centre unset": (protocol(96, 128), readouts(range(96), 0), (128, 0, 48, 95)),
    "interpolated": (protocol(128, 256, 128), readouts(WHOLE, 64), (128, 0, 64, 127)),
    "more than planned": (protocol(64, 64), readouts(WHOLE, 0), (128, 0, 64, 127)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_lines_of_the_matrix_match_the_transform_of_the_scanner(case):
    parameters, heads, (lines, *expected) = CASES[case]
    encoding = header_of("scan", parameters, heads).encoding[0]
    limits = encoding.encodingLimits.kspace_encoding_step_1
    assert encoding.encodedSpace.matrixSize.y == lines
    assert [limits.minimum, limits.center, limits.maximum] == expected
    over = 1.13 if case == "oversampling" else 1
    assert encoding.encodedSpace.fieldOfView_mm.y == pytest.approx(256 * over)
    assert (encoding.reconSpace.matrixSize.x, encoding.reconSpace.matrixSize.y) == (128, 128)
    assert (encoding.parallelImaging is not None) == (case == "GRAPPA")


@pytest.mark.parametrize(("depth", "expected"), [(0, 24), (32, 32)])
def test_partitions_of_the_matrix_match_the_transform_of_the_scanner(depth, expected):
    parameters = protocol(128, 128, dimension=4, partitions=24, depth=depth)
    encoding = header_of("scan", parameters, readouts(WHOLE, 64, range(24))).encoding[0]
    assert encoding.encodedSpace.matrixSize.z == expected
    limits = encoding.encodingLimits.kspace_encoding_step_2
    assert (limits.minimum, limits.center, limits.maximum) == (0, 12, 23)


@pytest.mark.parametrize(
    ("name", "lines", "center"), [(GRE, 160, 80), ("siemens_twix_16ch_128x128.dat", 128, 64)]
)
def test_lines_match_another_reader(data_dir, name, lines, center):
    pytest.importorskip("twixtools")
    with open_any(data_dir / "raw" / name) as scan:
        encoding, count = scan.header.encoding[0], len(scan)
    limits = encoding.encodingLimits.kspace_encoding_step_1
    assert (encoding.encodedSpace.matrixSize.y, count, limits.center) == (lines, lines, center)
    mapvbvd = pytest.importorskip("mapvbvd")
    theirs = mapvbvd.mapVBVD(str(data_dir / "raw" / name), quiet=True)
    theirs = theirs[-1] if isinstance(theirs, list) else theirs
    assert theirs.image.NLin == lines
    if name == GRE:  # the other file has no centre
        assert set(theirs.image.centerLin) == {center}
        meas = theirs.hdr["Meas"]
        assert meas["iPEFTLength"] == lines


def test_longer_transform_zero_fills(data_dir, tmp_path):
    """With a length of 192 in the protocol, the same lines are on a matrix of 192."""
    pytest.importorskip("twixtools")
    whole = (data_dir / "raw" / GRE).read_bytes()
    longer, count = re.subn(rb'("iPEFTLength">\s*\{\s*)160', rb"\g<1>192", whole)
    assert count == 1
    (tmp_path / GRE).write_bytes(longer)
    with open_any(data_dir / "raw" / GRE) as scan:
        before = zero_filled_kspace(scan)
    with open_any(tmp_path / GRE) as scan:
        after = zero_filled_kspace(scan)
    assert after.shape == (1, 2, 192, 160)
    np.testing.assert_array_equal(after[:, :, 16:176], before)
    assert not after[:, :, :16].any()
    assert not after[:, :, 176:].any()
