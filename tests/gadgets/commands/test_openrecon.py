"""`scoremri openrecon`: what a scanner's container platform reads, against what it demands.

The schema in tests/data restates, the constraints of the published
OpenReconSchema_1.1.0.json.
"""

import base64
import json
import os
import re
import shlex
import stat
import subprocess
from datetime import date
from pathlib import Path

import pytest
import typer

import scoremri_core
from gadgets.commands import app
from gadgets.commands.openrecon import DEVICES
from gadgets.openrecon import bundle as names
from gadgets.openrecon import files, image
from gadgets.openrecon.bundle import CAUTION, Bundle
from gadgets.openrecon.label import OUTPUTS as CHOICES
from gadgets.openrecon.label import label
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.stages.properties import OUTPUTS, Properties

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

SCHEMA = Path(__file__).parents[2] / "data" / "openrecon_1.1.0.json"
BASE = f"OpenRecon_scoremri_scoremri_V{scoremri_core.__version__}"
FILES = {
    "OpenReconLabel.json",
    f"{BASE}.Dockerfile",
    f"{BASE}.pdf",
    "build.sh",
    "README.md",
    "params.sh",
}


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("device", DEVICES)
def test_the_label_conforms_to_the_schema(validator, device):
    description = label(Bundle("A-Hospital", device))
    assert not list(validator.iter_errors(description))
    needs = description["reconstruction"]
    assert needs["can_use_gpu"] == (device == "cuda")
    assert needs["min_count_required_gpus"] == (device == "cuda")
    assert needs["content_qualification_type"] == "RESEARCH"
    assert date.fromisoformat(description["general"]["regulatory_information"]["manufacture_date"])


def changed(path, value):
    description = label(Bundle("scoremri"))
    *above, last = path
    part = description
    for key in above:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return description


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("general", "regulatory_information"), None),
        (("general", "regulatory_information", "udi"), None),
        (("general", "version"), "1.0"),
        (("general", "name"), "scoremri"),
        (("general", "colour"), "red"),
        (("reconstruction", "port"), None),
        (("reconstruction", "port"), "9002"),
        (("reconstruction", "emitter"), "kspace"),
        (("reconstruction", "transfer_protocol", "version"), "2.0"),
        (("reconstruction", "min_count_required_cpu_cores"), 0),
        (("parameters", 0, "id"), "num_samples"),
        (("parameters", 0, "default"), None),
        (("parameters", 0, "values"), []),
        (("parameters", 6, "minimum"), 0.5),
        (("parameters", 6, "type"), "integer"),
        (
            ("parameters", 0),
            {
                "type": "double",
                "id": "x",
                "label": {"en": "x"},
                "minimum": 0,
                "maximum": 1,
                "default": 0.25,
            },
        ),
    ],
)
def test_invalid_labels_are_refused_by_the_schema(validator, path, value):
    assert list(validator.iter_errors(changed(path, value)))


def test_the_schema_takes_at_most_14_parameters_all_different(validator):
    description = label(Bundle("scoremri"))
    (first, *_) = description["parameters"]
    assert len(description["parameters"]) <= 14
    description["parameters"] = [{**first, "id": f"p{i}"} for i in range(14)]
    assert not list(validator.iter_errors(description))
    description["parameters"].append({**first, "id": "p14"})
    assert list(validator.iter_errors(description))
    description["parameters"] = [first, first]
    assert list(validator.iter_errors(description))


def test_every_parameter_is_a_property_or_a_chain():
    chosen = label(Bundle("scoremri"))["parameters"]
    assert len({each["id"] for each in chosen}) == len(chosen)
    for each in chosen:
        assert re.fullmatch("[A-Za-z0-9]+", each["id"])
        assert each["information"]["en"].endswith(".")
        if each["type"] == "choice":
            values = [value["id"] for value in each["values"]]
            assert each["default"] in values
        else:
            values = [each["minimum"], each["default"], each["maximum"]]
            assert values == sorted(values)
        for value in values:
            if each["id"] == "config":
                assert Chain.served(value).nodes()
            else:
                Properties.parse({each["id"]: str(value)})


def test_every_real_output_can_be_selected():
    chosen = {name for names in CHOICES for name in names.split(",")}
    assert chosen == set(OUTPUTS) - {"complex_mean", "coil_maps", "interval"}


def test_the_files_have_the_names_of_both_bundle_formats(run, tmp_path):
    folder = tmp_path / "new" / "bundle"
    code, out, _ = run("openrecon", "-o", folder)
    assert (code, out) == (0, "")
    assert {path.name for path in folder.iterdir()} == FILES
    description = json.loads((folder / "OpenReconLabel.json").read_text())
    general = description["general"]
    for name in (general["id"], general["name"]["en"]):  # the one format takes one, the other
        assert f"OpenRecon_{general['vendor']}_{name}_V{general['version']}" == BASE
    script = (folder / "build.sh").read_text()
    for suffix in ("Dockerfile", "tar", "zip", "pdf"):
        assert f" {BASE}.{suffix}" in script
    assert (folder / "build.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("device", DEVICES)
def test_the_image_carries_the_label_and_serves_on_its_port(run, tmp_path, device):
    assert run("openrecon", "-o", tmp_path, "--device", device, "--vendor", "A-Hospital")[0] == 0
    (path,) = tmp_path.glob("*.Dockerfile")
    description = json.loads((tmp_path / "OpenReconLabel.json").read_text())
    lines = path.read_text().replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if line.startswith("LABEL")]
    name, encoded = re.fullmatch(r'LABEL "([^"]+)"="([A-Za-z0-9+/=]+)"', line).groups()
    assert name == "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
    assert json.loads(base64.b64decode(encoded)) == description
    (line,) = [line for line in lines if line.startswith("CMD")]
    program, command, *arguments = json.loads(line.removeprefix("CMD"))
    assert (program, command) == ("scoremri", "serve")
    known = {o for p in typer.main.get_command(app).commands["serve"].params for o in p.opts}
    assert {a for a in arguments if a.startswith("-")} <= known
    assert arguments[arguments.index("--host") + 1] == "0.0.0.0"
    port = str(description["reconstruction"]["port"])
    assert arguments[arguments.index("--port") + 1] == port
    assert f"EXPOSE {port}" in lines
    assert ("11.8" in path.read_text()) == (device == "cuda")


def test_the_script_builds_from_the_files_of_the_bundle(run, tmp_path):
    """Docker and Python are stand-ins that write down what they are called with."""
    assert run("openrecon", "-o", tmp_path / "bundle")[0] == 0
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("docker", "python3"):
        (bin_ / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "$LOG"\n')
        (bin_ / name).chmod(0o755)
    log = tmp_path / "log"
    environment = {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(log),
    }

    def build(**more):
        return subprocess.run(
            ["sh", tmp_path / "bundle" / "build.sh"],
            env={**environment, **more},
            capture_output=True,
            text=True,
        )

    done = build()
    assert done.returncode == 2
    assert done.stderr.startswith("first: pip wheel")
    (tmp_path / "bundle" / f"scoremri-{scoremri_core.__version__}-py3-none-any.whl").touch()
    done = build()
    assert done.returncode != 0
    assert "TORCH_INDEX" in done.stderr
    assert not log.exists()
    assert build(TORCH_INDEX="address").returncode == 0
    image = f"openrecon_scoremri_scoremri:v{scoremri_core.__version__}"
    assert [shlex.split(line) for line in log.read_text().splitlines()] == [
        shlex.split(
            f"docker build --platform linux/amd64 --build-arg TORCH_INDEX=address -t {image} "
            f"-f {BASE}.Dockerfile ."
        ),
        ["docker", "save", "-o", f"{BASE}.tar", image],
        ["python3", "-m", "zipfile", "-c", f"{BASE}.zip", f"{BASE}.tar", f"{BASE}.pdf"],
    ]


def test_manual_has_every_parameter(run, tmp_path):
    assert run("openrecon", "-o", tmp_path)[0] == 0
    written = (tmp_path / f"{BASE}.pdf").read_bytes()
    assert written.startswith(b"%PDF-1.")
    assert written.rstrip().endswith(b"%%EOF")
    text = (tmp_path / "README.md").read_text()
    for each in label(Bundle("scoremri"))["parameters"]:
        assert f"({each['id']})" in text
    assert CAUTION in text


def test_recipe_of_neurodesk(run, tmp_path):
    """What the checks of github.com/neurodesk/openrecon demand."""
    assert run("openrecon", "-o", tmp_path)[0] == 0
    text = (tmp_path / "README.md").read_text()
    assert max(map(len, text.splitlines())) <= 500
    assert text.isascii()
    shell = "set -eu; . ./params.sh; echo $toolName $version $baseDockerImage $localDockerImage"
    values = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()
    version = label(Bundle("scoremri"))["general"]["version"]
    assert values == [
        "scoremri", version, f"vnmd/scoremri_{version}", f"openrecon_scoremri_scoremri:v{version}",
    ]  # fmt: skip
    # the modules that the build imports, one for each chain
    (path,) = tmp_path.glob("*.Dockerfile")
    entries = dict(
        re.findall(rf"echo (\S+) \| base64 -d > {image.ENTRY}/(\w+)\.py", path.read_text())
    )
    code = {name: base64.b64decode(text).decode() for text, name in entries.items()}
    (config,) = (p for p in label(Bundle("scoremri"))["parameters"] if p["id"] == "config")
    assert {"main", *(value["id"] for value in config["values"])} == set(code)
    for name in code:
        compile(code[name], name, "exec")


def test_existing_files_are_kept(run, tmp_path):
    (tmp_path / "build.sh").write_text("mine")
    code, out, message = run("openrecon", "-o", tmp_path)
    assert (code, out) == (2, "")
    assert message == (
        f"scoremri: {tmp_path / 'build.sh'}: already exists; --overwrite replaces it\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["build.sh"]
    assert (tmp_path / "build.sh").read_text() == "mine"
    assert run("openrecon", "-o", tmp_path, "--overwrite")[0] == 0
    assert (tmp_path / "build.sh").read_text() != "mine"


def test_no_partial_files_are_left(run, tmp_path, monkeypatch):
    def fail(path, *_):
        path.write_bytes(b"%PDF half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_manual", fail)
    code, _, message = run("openrecon", "-o", tmp_path)
    assert code == 2
    assert "No space left on device" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vendor", ["", "a b", "a_b", "a/b", "-a", "é"])
def test_an_invalid_vendor_is_refused(run, tmp_path, vendor):
    code, out, message = run("openrecon", "-o", tmp_path, "--vendor", vendor)
    assert (code, out) == (2, "")
    assert message.startswith(f"scoremri: vendor '{vendor}': expected letters")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_is_refused(run, tmp_path):
    (tmp_path / "file").touch()
    code, _, message = run("openrecon", "-o", tmp_path / "file")
    assert code == 2
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("version", "semantic"),
    [("0.1.0", "0.1.0"), ("1.2", "1.2.0"), ("0.2.0.dev3+g1a2b", "0.2.0-dev3-g1a2b")],
)
def test_the_version_is_semantic(monkeypatch, validator, version, semantic):
    monkeypatch.setattr(scoremri_core, "__version__", version)
    assert Bundle("scoremri").version == semantic
    assert not list(validator.iter_errors(label(Bundle("scoremri"))))


def test_the_devices_are_those_of_the_package():
    assert names.DEVICES == DEVICES == tuple(image.TORCH)
