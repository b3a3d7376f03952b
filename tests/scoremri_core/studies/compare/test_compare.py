"""The papers' experiments: trials, rows on disk, statistics, figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from scoremri_core.errors import InputError
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.score.intervals import interval, paired_p
from scoremri_core.score.metrics import psnr
from scoremri_core.score.score import Answer
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.studies.compare import PRESETS, figures
from scoremri_core.studies.compare.presets import find_preset
from scoremri_core.studies.compare.report import drops, peers, tables
from scoremri_core.studies.compare.scores import Scores, TrialScore, Undersampled
from scoremri_core.studies.compare.tables import table
from scoremri_core.studies.compare.trials import SHIFTS, Scans, Trial, trials
from scoremri_core.studies.evaluate.survey import FullScan
from scoremri_core.studies.methods import POSTERIOR_MEAN


@pytest.fixture(scope="module")
def scans():
    kspace = zero_filled_kspace(SimulatedScan((40, 36), 3, slices=2, oversampling=1))
    return Scans([FullScan("T1", dict(enumerate(kspace)))], [], [], [])


def test_every_shift_has_trials_of_what_there_is(scans):
    preset = find_preset("default")
    full = replace(scans, phantoms=[FullScan("T2 phantom", {})], anatomy=[FullScan("leg", {})])
    full = replace(full, real=[FullScan("head.h5", {})])
    found = list(trials(full, preset))
    assert len(found) == len(set(found))
    assert [s for s in SHIFTS if s in {t.shift for t in found}] == list(SHIFTS)
    inside = [t for t in found if t.shift == SHIFTS[0]]
    assert [t.acceleration for t in inside] == [3, 6]
    assert {(t.mask, t.axis, t.calibration) for t in inside} == {("equispaced", "phase", "8%")}
    assert {t.acceleration: t.calibration for t in found if t.shift == "acceleration"} == {
        9: "4%", 12: "4%",
    }  # fmt: skip
    labels = [t.label for t in found if t.shift == "mask"]
    assert "equispaced, horizontal, R = 6" in labels
    assert "poisson, 2D, R = 6" in labels
    assert not any(t.shift in ("anatomy", "real scan") for t in trials(scans, preset))


def test_every_preset_is_one_and_no_other_is():
    for name in PRESETS:
        preset = find_preset(name)
        assert preset.acceleration in preset.training.accelerations
    with pytest.raises(InputError, match="huge"):
        find_preset("huge")


def test_problem_and_references_come_from_the_same_data(scans):
    kspace = scans.held_out[0].slices[0]
    trial = Trial("mask", "T1", "uniform", acceleration=2.0, calibration="25%")
    given = Undersampled.of(kspace, trial, 0)
    assert given.true_acceleration == pytest.approx(2.0)
    kept = given.problem.mask
    np.testing.assert_array_equal(given.problem.kspace[:, kept], kspace[:, kept])
    np.testing.assert_allclose(abs(given.mvue), given.rss, atol=0.15 * given.rss.max())


def test_rows_are_kept_resumed_and_tried_again(scans, tmp_path):
    trial = Trial("in distribution", "T1", acceleration=2.0, calibration="25%")
    calls = []

    def good(problem):
        calls.append("good")
        same = np.stack([problem.zero_filled] * 3)
        return Answer(problem.zero_filled, same, evaluations=5, note="as it is")

    def bad(problem):
        calls.append("bad")
        raise RuntimeError("no\nluck")

    kept = []
    path = tmp_path / "rows.jsonl"
    scores = Scores(path, {"seed": 0})
    scores.run(scans, [trial], {"good": good, "bad": bad}, 0, keep=lambda *a: kept.append(a[2]))
    assert calls == ["good", "bad"] * 2
    assert kept == ["good"] * 2
    row = scores.rows["in distribution", trial.label, "T1", 1, "good"]
    given = Undersampled.of(scans.held_out[0].slices[1], trial, 0)
    assert row.psnr == pytest.approx(psnr(given.problem.zero_filled, given.mvue, masked=True))
    assert row.rss_psnr == pytest.approx(psnr(given.problem.zero_filled, given.rss, masked=True))
    assert (row.evaluations, row.note, row.error) == (5, "as it is", "")
    assert row.crps > 0
    assert row.coverage_90 < 0.5  # of samples that are all the same
    assert scores.rows["in distribution", trial.label, "T1", 0, "bad"].error == (
        "RuntimeError: no luck"
    )
    calls.clear()
    with path.open("a") as file:
        file.write('{"shift": "in dis')  # interrupted
    again = Scores(path, {"seed": 0})
    again.run(scans, [trial], {"good": good, "bad": bad}, 0)
    assert calls == ["bad", "bad"]
    with pytest.raises(InputError, match="other settings"):
        Scores(path, {"seed": 1})
    path.write_text(json.dumps({"settings": {"seed": 0}}) + "\n3\n4\n")
    with pytest.raises(InputError, match="line 2"):
        Scores(path, {"seed": 0})


def rows(values, shift=SHIFTS[0], method="other", label="equispaced, R = 6", score="psnr"):
    return [
        TrialScore(shift, label, "T1", i, 6, 5.8, method, **{score: v})
        for i, v in enumerate(values)
    ]


def test_intervals_and_tests_are_those_of_the_textbook():
    values = [31.0, 32.5, 30.2, 33.1]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    ours = [32.0, 33.0, 32.2, 33.9]
    expected = stats.ttest_rel(values, ours).pvalue
    assert paired_p(np.subtract(values, ours)) == pytest.approx(expected)
    (line,) = table(
        [*rows(values), *rows(ours, method=POSTERIOR_MEAN)],
        "psnr",
        ["other", POSTERIOR_MEAN],
        POSTERIOR_MEAN,
    )
    assert line.true_acceleration == pytest.approx(5.8)
    cell = line.cells["other"]
    assert (cell.mean, cell.count) == (pytest.approx(31.7), 4)
    assert cell.difference == pytest.approx(-1.075)
    assert cell.p == pytest.approx(expected)
    assert line.cells[POSTERIOR_MEAN].difference is None
    assert np.isnan(interval([1.0]))
    assert np.isnan(paired_p([1.0, 1.0]))


def test_the_lead_that_a_shift_takes_away():
    found = [
        *rows([30.0, 31.0]), *rows([32.0, 33.0], method=POSTERIOR_MEAN),
        *rows([20.0, 21.0], "mask"), *rows([29.0, 30.0], "mask", POSTERIOR_MEAN),
    ]  # fmt: skip
    text = "\n".join(drops(found, ["other", POSTERIOR_MEAN]))
    assert "| -2.0 |" in text
    assert "| -9.0 (-7.0) |" in text
    text = "\n".join(tables(found, ["other", POSTERIOR_MEAN]))
    assert "20.5 ± 6.4" in text


def test_peers_are_told_with_evaluations_and_calibration():
    row = replace(
        rows([30.0])[0], evaluations=11, seconds=2.0, crps=0.0031, coverage_90=0.87, method="DPS"
    )
    text = "\n".join(peers([row, replace(row, error="gone", method="other")]))
    assert "| DPS | equispaced, R = 6 | 1 | 11 | 2.0 | 30.0 | 3.10 | 87 % |" in text
    assert "other" not in text


def test_figures_show_what_they_are_given(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.random((20, 16))
    found = [
        replace(row, acceleration=r, true_acceleration=r - 0.2, ssim=0.9)
        for r in (3.0, 6.0)
        for row in rows([40 - r, 41 - r])
    ]
    left, right = figures.curves(found, ["other", "none"]).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [37.5, 34.5])
    np.testing.assert_allclose(left.lines[0].get_xdata(), [2.8, 5.8])
    assert len(right.lines) == 1
    figure = figures.panels([("a", truth, {"x": truth}), ("b", truth, {"x": truth + 0.1})])
    assert np.abs(figure.axes[3].images[0].get_array()).max() == 0
    np.testing.assert_allclose(figure.axes[7].images[0].get_array(), 0.1)
    samples = truth + 0.1 * rng.standard_normal((6, 20, 16))
    figure = figures.uncertainty(truth, samples)
    spread = np.abs(samples).std(0, ddof=1)
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), spread)
    figures.save(tmp_path / "zoom.png", figures.zoomed(truth, truth, samples))
    with Image.open(tmp_path / "zoom.png") as picture:
        assert picture.width > 800
    figures.animation(tmp_path / "a.gif", samples)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 6


def test_the_detail_is_where_samples_differ_most():
    samples = np.zeros((2, 30, 20))
    samples[1, 20:26, 3:7] = 1
    rows_, columns = figures.most_uncertain(samples)
    assert rows_.start <= 20
    assert rows_.stop >= 26
    assert columns.start <= 3
    assert columns.stop >= 7
