"""Checks of the Dockerfile without building it."""

import configparser
import importlib
import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer

import scoremri_core
from gadgets.commands import app

ROOT = Path(__file__).parent.parent


def stages():
    """Return the instructions of each stage, as pairs of keyword and arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    found, current = {"": []}, ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line:
            word, rest = line.split(maxsplit=1)
            if word == "FROM":
                current = rest.split(" AS ")[1]
                found[current] = []
            found[current].append((word, rest))
    return found


STAGES = stages()
ARGUMENTS = dict(rest.split("=", 1) for word, rest in STAGES[""] if word == "ARG")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def given(stage, word):
    return [rest for each, rest in STAGES[stage] if each == word]


def position(stage, text):
    (found,) = [i for i, (_, rest) in enumerate(STAGES[stage]) if text in rest]
    return found


def test_the_targets_are_documented():
    assert list(STAGES)[-1] == "serve"  # default target
    text = (ROOT / "docs" / "serving.md").read_text()
    assert set(re.findall(r"docker build --target (\w+)", text)) == {"gadgetron"} <= set(STAGES)


def test_the_bases_are_arguments_and_python_is_pinned():
    assert {rest.split()[0] for s in STAGES for rest in given(s, "FROM")} == {
        "${PYTHON}",
        "${GADGETRON}",
    }
    assert given("gadgetron", "FROM") == ["${GADGETRON} AS gadgetron"]
    assert re.fullmatch(r"python:3\.12-slim-bookworm@sha256:[0-9a-f]{64}", ARGUMENTS["PYTHON"])
    assert "/gadgetron_ubuntu_rt_cuda" in ARGUMENTS["GADGETRON"]


def test_copied_paths_exist_and_are_complete():
    copied = set()
    for rest in given("wheel", "COPY"):
        *sources, target = rest.split()
        assert all((ROOT / source).exists() for source in sources)
        assert target in ("./", *sources)
        copied |= set(sources)
    assert {"setup.cfg", "pyproject.toml", "scoremri_core", "gadgets", "config"} <= copied
    assert SETUP["metadata"]["long_description"].removeprefix("file: ") in copied
    assert set(SETUP["metadata"]["license_files"].split()) <= copied


def test_dependencies_are_installed_before_the_source():
    assert given("requirements", "COPY") == ["setup.cfg ."]
    for stage in ("gadgetron", "serve"):
        (copied,) = given(stage, "COPY")
        assert copied.startswith("--from=requirements ")
        assert position(stage, copied) < position(stage, "-r ") < position(stage, "from=wheel")
        assert "--no-deps" in STAGES[stage][position(stage, "from=wheel")][1]


def test_the_lists_are_the_requirements_of_setup_cfg(tmp_path, monkeypatch):
    (run,) = given("requirements", "RUN")
    program, flag, code = shlex.split(run)
    assert (program, flag) == ("python", "-c")
    monkeypatch.chdir(tmp_path)
    Path("setup.cfg").write_text((ROOT / "setup.cfg").read_text())
    exec(compile(code, "Dockerfile", "exec"), {})
    extras = SETUP["options.extras_require"]
    wanted = [SETUP["options"]["install_requires"], extras["mrd"], extras["status"]]
    assert Path("all.txt").read_text().split() == " ".join(wanted).split()
    assert Path("gpu.txt").read_text().split() == extras["gpu"].split()


def test_gadgetrons_python_keeps_its_numpy():
    run = STAGES["gadgetron"][position("gadgetron", "-r ")][1]
    assert "numpy.__version__" in run.partition("&&")[0]
    assert "-c /opt/scoremri/kept.txt" in run.partition("&&")[2]
    assert "cupy-cuda13x" not in run
    assert "gpu.txt" not in run


@pytest.mark.parametrize("stage", ["gadgetron", "serve"])
def test_the_user_is_not_root(stage):
    user = given(stage, "USER")[-1]
    assert int(user) > 0  # numeric, for Kubernetes


def test_ports_of_command_and_health_check_are_exposed():
    (command,) = map(json.loads, given("serve", "CMD"))
    (program,) = json.loads(given("serve", "ENTRYPOINT")[0])
    assert program in SETUP["options.entry_points"]["console_scripts"]
    parameters = typer.main.get_command(app).commands[command[0]].params
    assert {word for word in command if word.startswith("-")} <= {
        name for each in parameters for name in each.opts
    }
    assert command[command.index("--host") + 1] == "0.0.0.0"
    status = command[command.index("--status-port") + 1]
    (default,) = [each.default for each in parameters if each.name == "port"]
    assert given("serve", "EXPOSE") == [f"{default} {status}"]
    (health,) = given("serve", "HEALTHCHECK")
    python, flag, code = json.loads(health.partition("CMD ")[2])
    assert (python, flag) == ("python", "-c")
    assert f"http://127.0.0.1:{status}/healthz" in code
    assert given("gadgetron", "EXPOSE") == [str(default)]


def test_the_health_check_detects_a_missing_server():
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    from gadgets.service.server import Server
    from gadgets.service.status import Status

    code = json.loads(given("serve", "HEALTHCHECK")[0].partition("CMD ")[2])[2]
    server = Server(port=0)
    status = Status(["127.0.0.1"], 0, server)
    ((_, port),) = status.addresses
    asked = code.replace(":9003", f":{port}")
    try:
        exec(compile(asked, "Dockerfile", "exec"), {})
    finally:
        status.close()
        server.close()
    with pytest.raises(OSError, match="refused"):
        exec(compile(asked, "Dockerfile", "exec"), {})


def test_the_image_name_has_this_version():
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "docs" / "serving.md").read_text()
    versions = set(re.findall(r"scoremri:(\d[\w.]*)", text))
    assert versions == {scoremri_core.__version__}


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.xml")), ids=lambda p: p.name)
def test_every_target_of_the_chains_can_be_imported(path):
    chain = ElementTree.parse(path).getroot()
    assert chain.tag == "configuration"
    assert chain.findtext("version") == "2"
    assert chain.findall("stream/external")
    for node in chain.findall("stream/external/connect"):
        assert 0 < int(node.get("port")) < 65536
    for node in chain.findall("stream/external/execute"):
        assert node.get("type") == "python"
        assert callable(getattr(importlib.import_module(node.get("name")), node.get("target")))


def test_both_chains_are_present():
    assert {p.name for p in (ROOT / "config").iterdir()} >= {
        "score_recon.xml",
        "score_recon_generic.xml",
    }
