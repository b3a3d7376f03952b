from dataclasses import replace

import numpy as np
import pytest

from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.scans.files import write_scan
from scoremri_core.scans.gridding import fully_sampled_kspace, zero_filled_kspace
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate
from scoremri_core.studies.evaluate.comparison import METHODS, Evaluation
from scoremri_core.studies.evaluate.pictures import PANELS, Panels, figure_of_images
from scoremri_core.studies.evaluate.survey import (
    FullScan,
    ScanScore,
    cases,
    evenly_spaced,
    find_files,
    read_scans,
    summary,
    survey,
)


def classical(kspace):
    return reconstruct(kspace, sampler="none")


@pytest.fixture(scope="module")
def scan():
    kspace = zero_filled_kspace(SimulatedScan(matrix=(48, 48), coils=4, slices=2))
    return FullScan("head", dict(enumerate(kspace)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good scan, one undersampled, one that is not HDF5."""
    path = tmp_path_factory.mktemp("scans")
    full = SimulatedScan(matrix=(32, 32), coils=2, slices=3)
    write_scan(path / "good.mrd", full.header, full)
    thin = accelerate(full, "equispaced", 2, 8)
    write_scan(path / "thin.h5", thin.header, thin)
    (path / "text.h5").write_text("no scan")
    (path / "notes.txt").write_text("no scan either")
    return path


def test_files_are_found_once_and_in_order(folder):
    found = find_files([folder, folder / "text.h5"])
    assert [path.name for path in found] == ["good.mrd", "text.h5", "thin.h5"]
    with pytest.raises(InputError, match="no such file"):
        find_files([folder, folder / "none.h5"])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no scans"):
        find_files([folder / "empty"])


def test_what_is_no_full_scan_is_skipped_with_its_reason(folder, caplog):
    scans = read_scans(find_files([folder]), lambda path, total: [total - 1])
    assert [scan.name for scan in scans] == ["good.mrd"]
    assert scans[0].coils == 2
    np.testing.assert_array_equal(scans[0].slices[2], fully_sampled_kspace(folder / "good.mrd")[2])
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 2
    assert "text.h5" in lines[0]
    assert "not readable as HDF5" in lines[0]
    assert "thin.h5" in lines[1]
    assert "not fully sampled" in lines[1]


def test_no_scan_at_all_is_one_sentence(folder):
    with pytest.raises(InputError, match=r"none of 2 files .*text\.h5"):
        read_scans([folder / "text.h5", folder / "thin.h5"], lambda path, total: [0])
    with pytest.raises(InputError, match=r"^\S*thin\.h5 .*not fully sampled: "):
        read_scans([folder / "thin.h5"], lambda path, total: [0])


def test_a_reader_that_fails_otherwise_ends_nothing(folder, monkeypatch, caplog):
    def read(path, group):
        if path.name == "thin.h5":
            raise KeyError("acquisition")
        return fully_sampled_kspace(path, group)

    monkeypatch.setattr("scoremri_core.studies.evaluate.survey.fully_sampled_kspace", read)
    scans = read_scans([folder / "thin.h5", folder / "good.mrd"], lambda path, total: range(total))
    assert len(scans[0].slices) == 3
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    ("total", "count", "chosen"),
    [(7, 1, [3]), (7, 2, [1, 5]), (7, 3, [1, 3, 5]), (3, 9, [0, 1, 2]), (1, 1, [0]), (20, 1, [10])],
)
def test_slices_are_spread_from_the_middle(total, count, chosen):
    assert evenly_spaced(total, count) == chosen


def test_scans_of_one_coil_are_spared_what_they_cannot_bear():
    masks = ["equispaced", "random", "poisson-2d"]
    assert cases(1, masks, None) == [("random", 3), ("poisson-2d", 3)]
    assert cases(8, masks[:1], None) == [("equispaced", 4), ("equispaced", 6), ("equispaced", 8)]
    assert cases(1, masks[:1], [4, 5]) == [("equispaced", 4), ("equispaced", 5)]


def test_a_row_is_the_mean_of_its_slices(scan):
    calls = []
    (row, comparison), (other, _) = survey(
        [scan], ["random"], [3, 2], classical, 12, seed=1, before=lambda *case: calls.append(case)
    )
    scores, comparisons = zip(
        *(Evaluation(k, i, 12).run("random", 3, classical, 1) for i, k in scan.slices.items()),
        strict=True,
    )
    gains = [one[3].psnr - one[2].psnr for one in scores]
    # conjugate gradients sum in no fixed order
    assert row.gain == pytest.approx(np.mean(gains), abs=1e-3)
    assert row.gain == pytest.approx(row.psnr["posterior mean"] - row.psnr["L1-wavelet"])
    assert row.psnr["zero-filled"] == pytest.approx(
        np.mean([one[0].psnr for one in scores]), abs=1e-3
    )
    assert row.masked_ssim["CG-SENSE"] == pytest.approx(
        np.mean([one[1].masked_ssim for one in scores]), abs=1e-3
    )
    assert row.true_acceleration == pytest.approx(scores[0][0].true_acceleration)
    assert row.sigma_n == pytest.approx(np.mean([one[3].sigma_n for one in scores]), nan_ok=True)
    assert (row.scan, row.mask, row.acceleration, row.slices) == ("head", "random", 3, [0, 1])
    assert (row.sd_to_error, row.fallback, row.error) == (None, "no samples", "")
    assert other.acceleration == 2
    # the images are of the slice with the least gain
    np.testing.assert_array_equal(
        comparison.reference, comparisons[int(np.argmin(gains))].reference
    )
    assert [case[4] for case in calls] == list(METHODS) * 4
    assert [case[2:4] for case in calls[::4]] == [(3, 0), (3, 1), (2, 0), (2, 1)]


def test_a_case_that_fails_is_a_row_with_its_reason(scan):
    calls = []

    def sometimes(kspace):
        calls.append(kspace)
        if len(calls) == 1:
            raise RuntimeError("the device\nis gone")
        return classical(kspace)

    one = replace(scan, slices={0: scan.slices[0]})
    rows = [row for row, _ in survey([one], ["equispaced", "poisson-2d"], [4], sometimes, 12)]
    assert rows[0].error == "RuntimeError: the device is gone"
    assert rows[0].psnr == {}
    assert rows[1].error == ""
    assert rows[1].true_acceleration == pytest.approx(4, rel=0.01)
    # a calibration block that leaves no sample
    (row, comparison), _ = survey([one], ["poisson-2d", "random"], [20], classical, 12)
    assert "calibration block" in row.error
    assert comparison is None


def test_summary_is_of_all_rows_that_are_known():
    def row(gain, ratio, held):
        psnr = dict.fromkeys(METHODS, 30.0) | {"posterior mean": 30.0 + gain}
        return ScanScore(
            "s", "random", 4, [0], gain=gain, psnr=psnr, sd_to_error=ratio, coverage_90=held
        )

    rows = [row(1.0, 0.5, 0.7), row(3.0, 1.6, 0.95), row(-1.0, 1.0, 0.9), row(2.0, 0.9, 0.88)]
    failed = ScanScore("s", "random", 8, [0], error="gone")
    found = summary([*rows, failed])
    assert found["median"]["gain"] == 1.5
    assert found["median"]["psnr"]["posterior mean"] == 31.5
    assert found["median"]["misfit"] is None
    assert found["worst_gain"] == -1
    assert found["worst_sd_to_error"] == 0.5
    assert found["share_sd_to_error"] == 0.5
    assert found["share_coverage_90"] == 0.75
    assert (found["rows"], found["failed"]) == (5, 1)
    assert summary([failed])["worst_gain"] is None


def test_picture_has_a_row_of_panels_for_each_scan():
    rng = np.random.default_rng(0)

    def panels(name, shape):
        return Panels(
            name, tuple(rng.normal(size=(5, *shape)) * [[[1]], [[2]], [[3]], [[4]], [[9]]])
        )

    figure = figure_of_images([panels("first", (20, 30)), panels("second", (30, 10))])
    assert len(figure.axes) == 2 * len(PANELS)
    for row in (figure.axes[:5], figure.axes[5:]):
        limits = [axis.images[0].get_clim() for axis in row]
        assert len(set(limits[:3])) == len(set(limits[3:])) == 1
    assert [part.get_suptitle() for part in figure.subfigs] == ["first", "second"]
