import json

import pytest

from scoremri_core.samplers.registry import REGISTRY


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    from gadgets.commands import main

    path = tmp_path_factory.mktemp("validate") / "table.json"
    with pytest.raises(SystemExit) as end:
        main(["validate", "--quick", "-o", str(path)])
    assert end.value.code == 0
    return json.loads(path.read_text())


def test_every_sampler_is_in_every_case(document):
    assert document["quick"] is True
    cases = {row["case"] for row in document["rows"]}
    assert len(cases) == 3
    for case in cases:
        lines = [row for row in document["rows"] if row["case"] == case]
        assert {row["sampler"] for row in lines} == {"exact draws", *REGISTRY}


def test_exact_samples_are_calibrated(document):
    for row in document["rows"]:
        if row["sampler"] == "exact draws" and "increments" not in row["case"]:
            assert row["sd_ratio"] == pytest.approx(1, abs=0.02)
            assert row["mean_error"] < 0.06
            assert row["covariance_error"] < 0.15
            assert row["rank_chi2"] < 2
            assert row["residual_chi2"] == pytest.approx(1, abs=0.15)


def test_two_runs_of_gibbs_sampling_agree(document):
    """Of 79 and 400 draws, for signals of 8 points."""
    exact, found = (
        next(row for row in document["rows"] if row["sampler"] == name and "laplace" in row["case"])
        for name in ("exact draws", "posterior")
    )
    assert exact["sd_ratio"] == pytest.approx(1, abs=0.1)
    assert exact["mean_error"] < 0.12
    assert exact["mse_over_best"] == pytest.approx(1, abs=0.15)
    # one sampler that was not made for such signals is near enough
    assert found["sd_ratio"] == pytest.approx(1, abs=0.25)


def test_the_default_sampler_is_calibrated_for_a_gaussian(document):
    exact, found = (
        next(row for row in document["rows"] if row["sampler"] == name)
        for name in ("exact draws", "posterior")
    )
    assert found["evaluations"] == 10
    assert found["sd_ratio"] == pytest.approx(1, abs=0.03)
    assert found["pixel_90"] == pytest.approx(exact["pixel_90"], abs=0.03)
    assert found["crps"] == pytest.approx(exact["crps"], rel=0.05)


def test_the_table_is_printed(run):
    code, out, _ = run("validate", "--quick", "--seed", 1)
    assert code == 0
    assert all(f" {name} " in out for name in REGISTRY)
    assert "mixture" in out
    assert "sd ratio" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--device", "abacus"), "abacus"), (("-o", "/no/such/folder/x.json"), "does not exist")],
)
def test_bad_input_is_one_line(run, arguments, words):
    code, out, err = run("validate", "--quick", *arguments)
    assert (code, out) == (2, "")
    assert words in err
