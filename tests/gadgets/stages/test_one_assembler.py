"""The k-space of a scan from the stream equals that from its file to the last bit."""

import numpy as np
import pytest

from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core.scans.gridding import gridded
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate

KINDS = {
    "plain": {},
    "alternating": {"alternating": True},
    "without_oversampling": {"oversampling": 1},
    "odd": {"matrix": (27, 23)},
    "averaged": {"averages": 3},
    "phase_oversampled": {"phase_oversampling": 1.5},
}


class Shortened:
    """A scan without its last lines, which then have fewer averages."""

    def __init__(self, scan, lines):
        self.header, self.name = scan.header, scan.name
        self._scan, self._count = scan, len(scan.heads()) - lines

    def heads(self):
        return self._scan.heads()[: self._count]

    def __iter__(self):
        return iter(list(self._scan)[: self._count])


def agree(scan):
    frames = list(accumulate(scan, scan.header, Properties()))
    for frame, kspace in zip(frames, gridded(scan), strict=True):
        for name in ("values", "mask", "averages", "unit"):
            np.testing.assert_array_equal(getattr(frame.kspace, name), getattr(kspace, name))
    return frames


@pytest.mark.parametrize("kind", KINDS)
def test_stream_and_file_agree(kind):
    scan = SimulatedScan(**{"matrix": (24, 20), "coils": 3, "slices": 2, **KINDS[kind]})
    assert all(frame.kspace.averages is None for frame in agree(scan))


def test_stream_and_file_agree_on_unequal_averages():
    scan = SimulatedScan(matrix=(24, 20), coils=3, averages=2)
    (frame,) = agree(Shortened(scan, 7))
    assert sorted(np.unique(frame.kspace.averages)) == [1, 2]


def test_stream_and_file_agree_on_a_partial_echo():
    scan = SimulatedScan(matrix=(24, 20), coils=3)
    thinned = accelerate(scan, "equispaced", 1, 24, echo=0.7)
    items = list(thinned)

    class Kept:
        name, header = "thinned", thinned.header

        def heads(self):
            return np.array([np.frombuffer(a.getHead(), scan.heads().dtype)[0] for a in items])

        def __iter__(self):
            return iter(items)

    (frame,) = agree(Kept())
    assert not frame.kspace.array[..., :5].any()
