import json

import pytest

from scoremri_core.commands import main
from scoremri_core.scans import write_scan
from scoremri_core.simulation import SimulatedScan


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "full.h5"
    scan = SimulatedScan(matrix=(64, 64), coils=4, slices=2)
    write_scan(path, scan.header, scan)
    return path


def run(*arguments):
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, arguments)])
    return stopped.value.code


def test_table_scores_and_picture(scan_file, tmp_path, capsys):
    table, picture = tmp_path / "table.json", tmp_path / "out.png"
    code = run(
        scan_file, "-R", 3, "-R", 5, "--calibration", 16, "--slice", 1,
        "-p", "sampler=none", "-o", table, "--picture", picture,
    )  # fmt: skip
    assert code == 0
    printed = capsys.readouterr().out
    assert "PSNR dB" in printed
    assert "L1-wavelet" in printed
    document = json.loads(table.read_text())
    assert [row["acceleration"] for row in document["mean"]] == [3.0] * 4 + [5.0] * 4
    assert {row["slice"] for row in document["slices"]} == {1}
    zero, sense = document["mean"][:2]
    assert f"{sense['psnr']:.2f}" in printed
    assert sense["psnr"] > zero["psnr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out_R3.png", "out_R5.png", "table.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--slice", "7"], "slice"),
        (["-p", "sampler"], "KEY=VALUE"),
        (["-p", "sampler=nuts"], "nuts"),
        (["--mask", "spiral"], "spiral"),
        (["--prior", "no_such_prior"], "no_such_prior"),
    ],
)
def test_bad_input_ends_in_one_sentence(scan_file, tmp_path, capsys, arguments, reason):
    table = tmp_path / "table.json"
    assert run(scan_file, "-R", "4", "--calibration", "16", "-o", table, *arguments) == 2
    message = capsys.readouterr().err
    assert reason in message.splitlines()[-1]
    assert not table.exists()
