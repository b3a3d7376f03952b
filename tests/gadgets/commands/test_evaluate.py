import json
from functools import wraps

import numpy as np
import pytest
from matplotlib.image import imread

from scoremri_core.recon import reconstruction
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate
from scoremri_core.studies.evaluate.comparison import Evaluation

CLASSICAL = ("-p", "sampler=none")
QUICK = ("--calibration", 12, *CLASSICAL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two good scans, the second of one coil, one that is undersampled, one not HDF5."""
    path = tmp_path_factory.mktemp("evaluate")
    scan = SimulatedScan(matrix=(48, 48), coils=4, slices=2)
    write_scan(path / "full.h5", scan.header, scan)
    one_coil = SimulatedScan(matrix=(32, 32), coils=1, slices=3)
    write_scan(path / "one_coil.mrd", one_coil.header, one_coil)
    thin = accelerate(scan, "equispaced", 2, 8)
    write_scan(path / "thin.h5", thin.header, thin)
    (path / "text.h5").write_text("no scan")
    return path


@pytest.fixture(scope="module")
def scan_file(folder):
    return folder / "full.h5"


def loaded(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_table_scores_and_picture(run, scan_file, tmp_path):
    table, picture = tmp_path / "table.json", tmp_path / "out.png"
    code, printed, _ = run(
        "evaluate", scan_file, "-R", 3, "-R", 5, "--slice", 1, *QUICK,
        "-o", table, "--picture", picture,
    )  # fmt: skip
    assert code == 0
    document = loaded(table)
    rows = document["rows"]
    assert [(row["mask"], row["acceleration"]) for row in rows] == [
        ("equispaced", 3.0), ("equispaced", 5.0),
    ]  # fmt: skip
    for row in rows:
        assert row["slices"] == [1]
        assert {score["slice"] for score in row["scores"]} == {1}
        assert f"{row['psnr']['L1-wavelet']:.2f}" in printed
        assert row["psnr"]["CG-SENSE"] > row["psnr"]["zero-filled"]
    assert document["summary"]["worst_gain"] == min(row["gain"] for row in rows)
    assert f"{document['summary']['worst_gain']:+.2f} dB" in printed
    assert "no samples" in printed
    height, width = imread(picture).shape[:2]
    assert width > 3 * height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "table.json"]


def test_all_slices_of_a_single_file_are_evaluated(run, scan_file, tmp_path):
    table = tmp_path / "table.json"
    assert run("evaluate", scan_file, *QUICK, "--json", table)[0] == 0
    rows = loaded(table)["rows"]
    assert [row["acceleration"] for row in rows] == [4, 6, 8]
    assert {row["mask"] for row in rows} == {"equispaced"}
    assert all(row["slices"] == [0, 1] for row in rows)


def test_a_folder_makes_one_table_of_its_full_scans(run, folder, tmp_path):
    table = tmp_path / "table.json"
    code, printed, log = run(
        "evaluate", "--data", folder, *QUICK, "--mask", "equispaced", "--mask", "random",
        "--json", table,
    )  # fmt: skip
    assert code == 0
    rows = loaded(table)["rows"]
    several = [("full.h5", mask, r) for mask in ("equispaced", "random") for r in (4, 6, 8)]
    assert [(row["scan"], row["mask"], row["acceleration"]) for row in rows] == [
        *several, ("one_coil.mrd", "random", 3),
    ]  # fmt: skip
    # from the middle of two and of three
    assert [row["slices"] for row in rows] == [[1]] * 7
    for name in ("text.h5", "thin.h5"):
        assert sum(name in line for line in log.splitlines()) == 1
    assert "one_coil.mrd" in printed


def test_masks_and_calibration_of_the_papers(run, scan_file, tmp_path):
    table = tmp_path / "table.json"
    code, printed, _ = run(
        "evaluate", scan_file, "-R", 2.5, "--true-acceleration", "--axis", "readout",
        "--mask", "equispaced", "--mask", "uniform", "--calibration", "25%", *CLASSICAL,
        "-o", table,
    )  # fmt: skip
    assert code == 0
    document = loaded(table)
    assert (document["axis"], document["calibration"]) == ("readout", "25%")
    for row in document["rows"]:
        assert row["error"] == ""
        assert row["true_acceleration"] == pytest.approx(2.5, rel=0.12)
        assert row["gain_interval"] > 0
        best, fixed = row["psnr"]["L1-wavelet"], row["psnr_fixed_lambda"]
        assert fixed <= best
        assert f"{fixed:.2f}" in printed
    assert document["summary"]["mean_gain_interval"] is None  # of a single scan


def test_samples_are_scored(run, scan_file, tmp_path):
    table = tmp_path / "table.json"
    code, printed, _ = run(
        "evaluate", "--data", scan_file, "-R", 4, "--mask", "poisson-2d", "--calibration", 12,
        "--samples", 2, "--steps", 2, "--json", table,
    )  # fmt: skip
    assert code == 0
    (row,) = loaded(table)["rows"]
    assert row["true_acceleration"] == pytest.approx(4, rel=0.01)
    assert 0.2 < row["sd_to_error"] < 5
    assert 0.2 < row["coverage_90"] <= 1
    assert f"{row['sd_to_error']:.2f}" in printed
    assert f"{row['coverage_90']:.0%}" in printed


def test_finished_rows_are_kept_on_interrupt(run, scan_file, tmp_path, monkeypatch):
    table = tmp_path / "table.json"
    real, calls = reconstruction.reconstruct, []

    @wraps(real)
    def interrupted(*arguments, **options):
        calls.append(options)
        if len(calls) == 2:
            raise ValueError("no luck")
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(reconstruction, "reconstruct", interrupted)
    assert (
        run("evaluate", "--data", scan_file, "--mask", "equispaced", *QUICK, "-o", table)[0] == 130
    )
    first, second = loaded(table)["rows"]
    assert first["error"] == ""
    assert second["error"] == "ValueError: no luck"
    assert {path.name for path in tmp_path.iterdir()} == {"table.json", "table.json.rows"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--slice", "7"], "slice"),
        (["--slice", "0", "--slices", "1"], "slice"),
        (["-p", "sampler"], "KEY=VALUE"),
        (["-p", "sampler=nuts"], "nuts"),
        (["-p", "colour=red"], "colour"),
        (["-p", "calibration=3"], "calibration"),
        (["-p", "device=abacus"], "abacus"),
        (["--mask", "spiral"], "spiral"),
        (["--axis", "slice"], "axis 'slice'"),
        (["--calibration", "a few"], "calibration 'a few'"),
        (["-R", "0.5"], "acceleration 0.5"),
        (["-R", "2.5"], "acceleration 2.5"),
        (["--prior", "no_such_prior"], "no_such_prior"),
        (["--picture", "no_such_folder/out.png"], "no_such_folder"),
        (["--data", "no_such_scans"], "no_such_scans"),
    ],
)
def test_invalid_input_is_one_sentence_before_the_computation(
    run, scan_file, tmp_path, monkeypatch, arguments, reason
):
    def work(*_):
        raise AssertionError("nothing is to be reconstructed")

    monkeypatch.setattr("scoremri_core.studies.evaluate.survey.Evaluation", work)
    table = tmp_path / "table.json"
    code, _, log = run("evaluate", scan_file, "-R", "4", "-o", table, *arguments)
    assert code == 2
    assert reason in log.splitlines()[-1]
    assert not table.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--data"),
        (["thin.h5"], "not fully sampled"),
        (["--data", "thin.h5", "--data", "text.h5"], "none of 2 files"),
        (["--data", "one_coil.mrd", "--mask", "equispaced"], "single-coil"),
        (["full.h5", "--calibration", "200"], "calibration 200"),
        (["full.h5", "-p", "maps=5"], "maps is 5"),
    ],
)
def test_no_result_is_one_sentence(run, folder, monkeypatch, arguments, reason):
    monkeypatch.chdir(folder)
    code, _, log = run("evaluate", *arguments, *CLASSICAL)
    assert code == 2
    assert reason in log.splitlines()[-1]


def test_an_interrupted_evaluation_is_resumed(run, scan_file, tmp_path, monkeypatch):
    table, other = tmp_path / "table.json", tmp_path / "other.json"
    command = ("evaluate", scan_file, "-R", 3, "-R", 5, "--slice", 1, *QUICK, "--picture")
    stop, evaluated = [True], []
    complete = Evaluation.run

    def interrupted(self, mask, factor, *rest):
        if stop[0] and factor == 5:
            raise KeyboardInterrupt
        evaluated.append(factor)
        return complete(self, mask, factor, *rest)

    monkeypatch.setattr(Evaluation, "run", interrupted)
    side = tmp_path / "table.json.rows"
    assert run(*command, tmp_path / "a.png", "-o", table)[0] == 130
    assert len(loaded(table)["rows"]) == 1
    assert side.exists()
    code, _, err = run(*command, tmp_path / "b.png", "-o", table, "--seed", 1)
    assert code == 2
    assert "table.json.rows: already exists; it has other settings or scans; --overwrite" in err
    stop[0] = False
    code, _, err = run(*command, tmp_path / "a.png", "-o", table)
    assert code == 0
    assert "resuming after 1 row" in err
    assert not side.exists()
    assert run(*command, tmp_path / "c.png", "-o", other)[0] == 0
    # the worst case is evaluated again for its picture
    assert evaluated in ([3, 5, 3, 5], [3, 5, 3, 3, 5])
    np.testing.assert_allclose(imread(tmp_path / "a.png"), imread(tmp_path / "c.png"), atol=0.02)
    resumed, at_once = (loaded(path)["rows"] for path in (table, other))
    assert [row["acceleration"] for row in resumed] == [3, 5]
    for row, reference in zip(resumed, at_once, strict=True):
        assert row["psnr"] == pytest.approx(reference["psnr"], abs=1e-4)
        assert row["scores"][0].keys() == reference["scores"][0].keys()
