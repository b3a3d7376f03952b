"""Options of every command: the level of the log and the settings file."""

import h5py
import pytest

from scoremri_core.scans.files import open_scan


@pytest.mark.parametrize("before", [True, False])
def test_the_level_of_the_log_is_set_before_or_after_the_command(run, tmp_path, before):
    def simulate(name, *options):
        command = ("simulate", "-o", tmp_path / f"{name}.h5", "--matrix", 16, "--coils", 1)
        code, out, err = run(*((*options, *command) if before else (*command, *options)))
        assert (code, out) == (0, "")
        return err

    assert "fully sampled" in simulate("default")
    assert "fully sampled" in simulate("info", "--log-level", "info")
    assert simulate("quiet", "--quiet") == ""
    assert simulate("error", "--log-level", "error") == ""


def test_an_unknown_level_lists_the_known(run):
    code, _, err = run("simulate", "-o", "x.h5", "--log-level", "loud")
    assert code == 2
    assert "log level 'loud': expected one of debug, info" in err


@pytest.fixture
def settings(tmp_path):
    def write(text):
        (tmp_path / "settings.toml").write_text(text)
        return tmp_path / "settings.toml"

    return write


def test_a_settings_file_sets_options_and_the_command_line_wins(run, settings, tmp_path):
    file = settings(f"""
[simulate]
matrix = 16
coils = 3
interleaved = true
output = "{tmp_path}/out.h5"
[replay]
property = {{sampler = "none", outputs = "mean,phase"}}
""")
    assert run("--settings", file, "simulate", "--coils", 2)[0] == 0
    with open_scan(tmp_path / "out.h5") as scan:
        assert set(scan.heads()["active_channels"]) == {2}
        assert set(scan.heads()["number_of_samples"]) == {32}
    assert run("replay", tmp_path / "out.h5", "-o", tmp_path / "i.h5", "--settings", file)[0] == 0
    with h5py.File(tmp_path / "i.h5") as images:
        assert len(images["dataset"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[replay]\npropertty = 'a=1'", "replay: option 'propertty' (did you mean 'property'?)"),
        ("[reply]\ngroup = 'a'", "command 'reply' (did you mean 'replay'?)"),
        ("[replay]\ngroup = ['a']", "replay: group: expected one value"),
        ("replay = 1", "replay: expected a table, [replay]"),
        ("[replay", "expected a TOML file"),
    ],
)
def test_a_wrong_settings_file_is_refused(run, settings, text, message):
    code, out, err = run("replay", "in.h5", "-o", "out.h5", "--settings", settings(text))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_preset_fills_what_the_settings_file_leaves(run, settings, tmp_path):
    file = settings("[train]\npreset = 'ramzi2020'\nchannels = '8,8'\n")
    code, _, err = run("train", "--data", tmp_path, "-o", tmp_path / "run", "--settings", file)
    assert code == 2
    assert "expected as many channels as blocks" in err  # three blocks of the preset
