import json

import pytest

from scoremri_core.priors import load_prior
from scoremri_core.studies.benchmark.floor import evaluation_flops
from scoremri_core.studies.benchmark.methods import COIL_MAPS, FRAME
from scoremri_core.studies.benchmark.report import Timing


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The table as JSON, and as printed."""
    import contextlib
    import io

    from gadgets.commands import main

    path = tmp_path_factory.mktemp("benchmark") / "table.json"
    printed = io.StringIO()
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(printed):
        main(["benchmark", "--quick", "--device=cpu", "--threads=1", "--json", str(path)])
    assert end.value.code == 0
    return json.loads(path.read_text()), printed.getvalue()


def test_every_row_is_measured_or_has_a_reason(outcome):
    document, printed = outcome
    methods = [row["method"] for row in document["frame"]]
    assert methods == [n for n in FRAME if n not in ("convolutions", "scoremri, batch")]
    rows = document["frame"] + document["coil_maps"][0]["rows"]
    assert [row["method"] for row in document["coil_maps"][0]["rows"]] == list(COIL_MAPS)
    for row in rows:
        assert set(row) == set(Timing.__dataclass_fields__)
        assert f" {row['method']} " in printed
        if row["seconds"] is None:
            assert "not installed" in row["note"]
        else:
            assert len(row["runs"]) == 1
            assert row["memory"] > 1


def test_default_and_langevin_rows(outcome):
    default, langevin = outcome[0]["frame"][:2]
    assert (default["evaluations"], langevin["evaluations"]) == (3, 3975)
    assert default["ratio"] == 1
    assert default["psnr"] > 25
    assert langevin["psnr"] is None
    assert langevin["ratio"] == pytest.approx(langevin["seconds"] / default["seconds"])
    assert "scaled" in langevin["method"]
    assert "extrapolated" in langevin["note"]
    for row in (default, langevin):
        split = row["coil_maps"] + row["denoiser"] + row["rest"]
        assert split == pytest.approx(row["seconds"])
        assert row["seconds_per_sample"] == row["seconds"] / 2


def test_coil_maps_are_compared_with_those_of_scoremri(outcome):
    ours, sigpy, _ = outcome[0]["coil_maps"][0]["rows"]
    assert ours["similarity_1st_percentile"] == pytest.approx(1, abs=1e-6)
    assert sigpy["similarity_median"] > 0.999


def test_lower_bound_is_that_of_the_default_network(outcome):
    document, printed = outcome
    floor, default = document["floor"], document["frame"][0]
    assert floor["flops"] == evaluation_flops(load_prior("default"), (64, 64))
    # three evaluations of two samples, at the faster of the two rates
    assert floor["seconds"] == pytest.approx(floor["flops"] * 6 / max(floor["rates"].values()))
    assert floor["denoiser_fraction"] == pytest.approx(floor["seconds"] / default["denoiser"])
    assert floor["overhead"] == pytest.approx(1 - default["denoiser"] / default["seconds"])
    assert f"Everything but the denoiser takes {floor['overhead']:.0%}" in printed


def test_scan_and_machine_are_reported(outcome):
    document, printed = outcome
    assert document["scan"]["shape"] == [4, 64, 64]
    assert document["settings"]["samples"] == 2
    assert document["machine"]["threads"] == 1
    assert document["machine"]["torch"] in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "abacus"), "abacus"),
        (("--prior", "no_such_prior"), "no_such_prior"),
        (("--size", "8"), "16 to 1024"),
        (("--espirit", "320x320"), "32x320x320"),
        (("--data", "/no/such/scan.h5"), "/no/such/scan.h5"),
        (("--json", "/no/such/folder/x.json"), "does not exist"),
        (("--samples", "0"), "samples"),
    ],
)
def test_bad_input_is_one_line(run, arguments, words):
    code, out, err = run("benchmark", "--quick", *arguments)
    assert (code, out) == (2, "")
    assert words in err.splitlines()[-1]


def test_long_times_are_written_without_exponent():
    from gadgets.commands.benchmark import _formatted

    assert [_formatted(v, ".3g") for v in (None, 0.1234, 12.34, 999.0, 18234.5)] == [
        "", "0.123", "12.3", "999", "18,234",
    ]  # fmt: skip
