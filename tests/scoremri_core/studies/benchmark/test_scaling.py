from dataclasses import replace

import numpy as np
import pytest

from scoremri_core.studies.benchmark import scaling as module
from scoremri_core.studies.benchmark.case import Measurement
from scoremri_core.studies.benchmark.scaling import draw, exponent, points, scaling


def test_exponent_of_a_power_law():
    n = np.array([3.0, 10, 40, 100])
    assert exponent(n, list(7 * n**1.5)) == pytest.approx(1.5)
    assert exponent(n, [None, *(7 * n[1:] ** 2)]) == pytest.approx(2)
    assert exponent(n, [None, None, None, 1.0]) is None


@pytest.fixture
def clock(monkeypatch):
    """A machine whose frames take time in proportion to all that is computed."""

    def measured(group, names, case, repetitions, threads):
        coils, ny, nx = case.kspace.shape
        if coils == 3:
            return {names[0]: "failed: no room"}
        frame = 1e-6 * coils * case.samples * ny * nx
        run = Measurement(frame, memory=100 + frame)
        return {names[0]: [run, replace(run, seconds=2 * frame), run]}

    monkeypatch.setattr(module, "measure", measured)


@pytest.mark.usefixtures("clock")
def test_each_size_grows_alone(tmp_path):
    sizes = {"slices": (1, 3), "samples": (1, 2), "side": (32, 48), "coils": (2, 3, 4)}
    calls = []
    found = scaling((4, 32, 32), sizes, 4, 16, 0, advance=calls.append, samples=2)
    assert len(calls) == points(sizes) == 9
    assert [each["size"] for each in found] == ["slices", "samples", "pixels", "coils"]
    for each in found:
        assert each["exponents"]["seconds"] == pytest.approx(1)
    pixels, coils = found[2], found[3]
    assert [row["n"] for row in pixels["rows"]] == [1024, 2304]
    assert pixels["n_log_n"] == pytest.approx(
        1 + np.log(np.log(2304) / np.log(1024)) / np.log(2304 / 1024)
    )
    assert coils["rows"][1]["seconds"] is None
    assert coils["rows"][1]["note"] == "failed: no room"
    draw(tmp_path / "growth.png", found)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
