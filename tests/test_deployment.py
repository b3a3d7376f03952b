"""Configurations of Kubernetes and Tyger: valid, and consistent with the command line."""

import copy
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import typer
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

import scoremri_core
from gadgets.commands import app
from gadgets.protocol.gadgetron.chain import Chain
from scoremri_core.scans.files import open_scan

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parent.parent
KUBERNETES, TYGER = ROOT / "config" / "kubernetes.yaml", ROOT / "config" / "tyger.yaml"
DEPLOYMENT, SERVICE = yaml.safe_load_all(KUBERNETES.read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
CODESPEC = yaml.safe_load(TYGER.read_text())
IMAGE = f"scoremri:{scoremri_core.__version__}"
PROGRAM = "scoremri"
COMMANDS = typer.main.get_command(app).commands


def options(command):
    return {name for parameter in COMMANDS[command].params for name in parameter.opts}


def given(arguments):
    return {word for word in arguments if word.startswith("-")}


def value(option):
    return CONTAINER["args"][CONTAINER["args"].index(option) + 1]


@pytest.mark.parametrize("version", ["1.28", "1.33"])
def test_the_manifests_are_valid(version):
    validator = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    for manifest in (DEPLOYMENT, SERVICE):
        validator.validate(manifest, version, strict=True)
    wrong = copy.deepcopy(DEPLOYMENT)
    wrong["spec"]["template"]["spec"]["containers"][0]["port"] = 9002
    with pytest.raises(validator.ValidationError):
        validator.validate(wrong, version, strict=True)


def test_the_manifests_are_a_deployment_and_its_service():
    assert (DEPLOYMENT["apiVersion"], DEPLOYMENT["kind"]) == ("apps/v1", "Deployment")
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("v1", "Service")
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert SERVICE["spec"]["selector"].items() <= labels.items()
    for manifest in (DEPLOYMENT, SERVICE):
        assert manifest["metadata"]["labels"].items() <= labels.items()
        assert re.fullmatch("[a-z0-9-]+", manifest["metadata"]["name"])


def test_the_ports_are_those_of_serve():
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert value("--port") == str(ports["scans"])
    assert value("--status-port") == str(ports["status"])
    assert value("--host") == "0.0.0.0"
    (port,) = SERVICE["spec"]["ports"]  # status only inside the cluster
    assert (port["targetPort"], port["port"]) == ("scans", ports["scans"])
    (default,) = [p.default for p in COMMANDS["serve"].params if p.name == "port"]
    assert int(port["port"]) == default


def test_every_container_runs_an_existing_command():
    assert CONTAINER["command"] == [PROGRAM]
    assert CONTAINER["args"][0] == "serve"
    assert given(CONTAINER["args"]) - {"--status-port"} <= options("serve")
    words = shell().split()
    assert words[:3] == ["exec", PROGRAM, "stream"]
    assert given(words) <= options("stream")
    assert Chain.load(words[words.index("-c") + 1]).nodes()


def test_the_probes_are_paths_of_serve():
    if "--status-port" not in options("serve"):
        pytest.skip("serve has no --status-port")
    for name, path in (("readiness", "/readyz"), ("liveness", "/healthz"), ("startup", "/healthz")):
        assert CONTAINER[f"{name}Probe"]["httpGet"] == {"path": path, "port": "status"}


def test_a_pod_has_one_gpu_and_time_to_finish_its_scans():
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert POD["terminationGracePeriodSeconds"] >= 600  # seconds


def test_deferred_images_are_fetched_from_the_pod_that_has_them():
    affinity = SERVICE["spec"]["sessionAffinity"]
    assert DEPLOYMENT["spec"]["replicas"] == 1 or affinity == "ClientIP"
    assert "sessionAffinity of the Service to ClientIP" in KUBERNETES.read_text()
    (mount,), (volume,) = CONTAINER["volumeMounts"], POD["volumes"]
    assert mount["name"] == volume["name"]
    assert value("--keep-in") == mount["mountPath"]
    assert "emptyDir" in volume


def test_a_pod_is_confined():
    """The baseline and the restricted profile of Kubernetes' Pod Security Standards."""
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"]["runAsNonRoot"]
    assert not CONTAINER["securityContext"]["allowPrivilegeEscalation"]
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    users = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert str(POD["securityContext"]["fsGroup"]) == users[-1]


def test_a_pod_declares_its_disk_space():
    def gib(quantity):
        return int(quantity.removesuffix("Gi"))

    asked, most = (CONTAINER["resources"][kind] for kind in ("requests", "limits"))
    assert gib(asked["ephemeral-storage"]) <= gib(most["ephemeral-storage"])
    assert gib(POD["volumes"][0]["emptyDir"]["sizeLimit"]) < gib(most["ephemeral-storage"])


def test_the_image_has_this_version():
    assert CONTAINER["image"] == CODESPEC["image"] == IMAGE


def test_the_codespec_has_valid_fields():
    known = {
        "kind", "name", "buffers", "image", "command", "args", "workingDir", "env", "identity",
        "resources", "maxReplicas", "endpoints",
    }  # fmt: skip
    assert set(CODESPEC) <= known
    assert CODESPEC["kind"] == "job"
    assert CODESPEC["buffers"] == {"inputs": ["input"], "outputs": ["output"]}
    assert set(CODESPEC["resources"]) <= {"requests", "limits", "gpu", "shm"}
    assert CODESPEC["resources"]["gpu"] == 1


def shell():
    program, flag, line = CODESPEC["command"]
    assert (program, flag) == ("sh", "-c")
    return line


def test_the_codespec_uses_named_pipes(tmp_path):
    """Tyger's part is played by two named pipes and the variables that name them."""
    commands = [sys.executable, "-m", "scoremri_core"]
    scan = tmp_path / "scan.h5"
    subprocess.run(
        [*commands, "simulate", "-o", scan, "--matrix", "24", "--coils", "2"],
        check=True,
        capture_output=True,
    )
    program = tmp_path / "scoremri"
    program.write_text(f'#!/bin/sh\nexec {" ".join(commands)} "$@" -p sampler=none\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    pipes = {name: tmp_path / name for name in ("INPUT_PIPE", "OUTPUT_PIPE")}
    for path in pipes.values():
        os.mkfifo(path)

    def send():
        with (
            open_scan(scan) as readouts,
            open(pipes["INPUT_PIPE"], "wb") as stream,
            ProtocolSerializer(stream) as serializer,
        ):
            serializer.serialize(readouts.header)
            for readout in readouts:
                serializer.serialize(readout)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    with subprocess.Popen(
        ["timeout", "100", "sh", "-c", shell().replace(PROGRAM, str(program))],
        env={**os.environ, **{name: str(path) for name, path in pipes.items()}},
        stderr=subprocess.DEVNULL,
    ) as job:
        with open(pipes["OUTPUT_PIPE"], "rb") as stream:
            images = list(ProtocolDeserializer(stream).deserialize())
        assert job.wait(100) == 0
    sender.join(10)
    assert [image.data.shape for image in images] == [(1, 1, 24, 24)]
