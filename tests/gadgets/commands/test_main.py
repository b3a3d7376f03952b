import subprocess
import sys
from importlib.metadata import version

import pytest

from gadgets.commands import COMMANDS


def test_help_names_every_command(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in COMMANDS)


def test_version(run):
    assert run("--version") == (0, f"scoremri {version('scoremri')}\n", "")


@pytest.mark.parametrize("command", ["demo", "replay", "simulate", "undersample"])
def test_every_command_has_help(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "-o, --output" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("simulate",), "Missing option"),
        (("simulate", "-o", "x.h5", "--coils", "many"), "--coils"),
        (("undersample", "absent.h5", "-o", "x.h5"), "absent.h5: no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_unexpected_file_errors_are_one_line(run, monkeypatch, tmp_path):
    def broken(*_):
        raise OSError(5, "Input/output error", "scan.h5")

    monkeypatch.setattr("scoremri_core.scans.formats.recognise.check_readable", broken)
    code, _, err = run("undersample", "scan.h5", "-o", tmp_path / "x.h5")
    assert (code, err) == (2, "scoremri: [Errno 5] Input/output error: 'scan.h5'\n")


def test_missing_libraries_are_one_line(run, monkeypatch, tmp_path):
    def absent(*_):
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    monkeypatch.setattr("scoremri_core.scans.formats.recognise.check_readable", absent)
    code, _, err = run("undersample", "scan.h5", "-o", tmp_path / "x.h5")
    message = f"{sys.executable} has no module 'torch', which scoremri needs: pip install scoremri"
    assert (code, err) == (2, f"scoremri: {message}\n")


def test_verbose_shows_the_traceback(run):
    code, _, err = run("-v", "undersample", "absent.h5", "-o", "x.h5")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("scoremri: absent.h5: no such file\n")


def test_python_m_runs_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "scoremri_core", "undersample", "absent.h5", "-o", "x.h5"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "scoremri: absent.h5: no such file\n"


def test_light_commands_do_not_import_torch(tmp_path):
    program = """
import sys
from gadgets.commands import main
full, thin = sys.argv[1:]
for arguments in (
    ["--help"],
    ["replay", "--help"],
    ["simulate", "-o", full, "--matrix", "24", "--coils", "2"],
    ["undersample", full, "-o", thin, "--calibration", "4"],
):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, arguments
    heavy = {"torch", "sigpy", "matplotlib"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    arguments = [sys.executable, "-c", program, tmp_path / "full.h5", tmp_path / "thin.h5"]
    subprocess.run(arguments, check=True, capture_output=True)
