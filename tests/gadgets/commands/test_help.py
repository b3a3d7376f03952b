"""What a user can learn of the commands without the manual."""

import re

import pytest
import typer

from gadgets.commands import COMMANDS, app
from gadgets.commands.options import AXES
from scoremri_core.priors.storage import ARCHITECTURES as NETWORKS
from scoremri_core.simulation import undersampling
from scoremri_core.simulation.masks import KINDS
from scoremri_core.training import ARCHITECTURES, LOSSES

GROUP = typer.main.get_command(app)
PATTERN = {
    "undersample": ("mask", "acceleration", "calibration", "axis", "calibration_mode"),
    "simulate": ("mask", "acceleration", "calibration", "axis", "calibration_mode"),
    "evaluate": ("mask", "acceleration", "calibration"),
    "benchmark": ("mask", "acceleration", "calibration"),
}


def options(command):
    return {parameter.name: parameter for parameter in GROUP.commands[command].params}


def shown(run, *arguments):
    return " ".join(run(*arguments, "--help")[1].split())


def test_the_command_alone_prints_the_help(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run()
    assert code == 2
    assert out + err == run("--help")[1]


def test_no_summary_is_truncated(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run("--help")
    lines = out[out.index("Commands:") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help_and_shows_its_default(command):
    context = typer.Context(GROUP.commands[command])
    for option in GROUP.commands[command].params:
        if option.param_type_name != "option":
            continue
        assert option.help, option.name
        _, text = option.get_help_record(context)
        if option.required:
            assert "[required]" in text
        elif not option.is_flag or option.secondary_opts:
            assert "[default: " in text, option.name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_python_types(run, command):
    assert not re.search(r"<(int|float|str|path|list|bool)", run(command, "--help")[1])


def test_choices_are_shown_as_choices(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command in PATTERN:
        assert f"--mask [{'|'.join(KINDS)}" in shown(run, command)
    assert f"--axis [{'|'.join(AXES)}]" in shown(run, "simulate")
    assert f"--architecture [{'|'.join(ARCHITECTURES)}]" in shown(run, "train")
    assert f"--loss [{'|'.join(LOSSES)}]" in shown(run, "train")
    assert tuple(undersampling.AXES) == AXES
    assert set(ARCHITECTURES) <= set(NETWORKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("undersample", "a.h5", "-o", "b.h5", "--mask", "spiral"), "mask 'spiral'"),
        (("benchmark", "--mask", "spiral"), "mask 'spiral'"),
        (("evaluate", "a.h5", "--mask", "random", "--mask", "spiral"), "mask 'spiral'"),
        (("simulate", "-o", "a.h5", "--axis", "time"), "axis 'time'"),
        (("train", "--data", "a", "-o", "b", "--architecture", "vgg"), "architecture 'vgg'"),
        (("train", "--data", "a", "-o", "b", "--loss", "mse"), "loss 'mse'"),
    ],
)
def test_a_wrong_choice_lists_the_known(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"scoremri: {message}: expected one of ")
    assert err.count("\n") == 1


def test_the_pattern_of_a_scan_is_described_alike_everywhere():
    for command, names in PATTERN.items():
        for name in names:
            option, reference = (options(c)[name] for c in (command, "undersample"))
            assert option.opts == reference.opts
            assert option.help.startswith(reference.help.rstrip("."))


def test_the_shell_completes_commands_and_choices(run, monkeypatch, capsys):
    shown = run("--help")[1]
    assert "--install-completion" in shown
    assert "--show-completion" in shown
    monkeypatch.setenv("_SCOREMRI_COMPLETE", "complete_bash")
    for words, found in (("scoremri un", "undersample"), ("scoremri simulate --axis pa", AXES[1])):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert run()[1].split() == [found]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("scoremri replay -c score_recon_g", ["score_recon_generic.xml"]),
        ("scoremri evaluate --prior nc", ["ncsnv2"]),
        ("scoremri train --depth deeper --start res", ["residual-unet"]),
        ("scoremri serve --prior def", ["default"]),
        ("scoremri replay -p seri", ["series="]),
        ("scoremri replay -p prior=re", ["prior=residual-unet"]),
        ("scoremri check score_recon_g", ["score_recon_generic.xml"]),
        ("scoremri replay --log-level wa", ["warning"]),
    ],
)
def test_the_shell_completes_chains_priors_and_properties(run, monkeypatch, words, found):
    monkeypatch.setenv("_SCOREMRI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert run()[1].split() == found
