import configparser
import importlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
INSTRUCTIONS = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def test_every_copied_path_exists_and_lands_in_one_folder():
    copies = [line.split()[1:] for line in INSTRUCTIONS if line.startswith("COPY")]
    for words in copies:
        *sources, target = [word for word in words if not word.startswith("--")]
        assert target.startswith("/opt/scoremri/")
        assert all((ROOT / source).exists() for source in sources)
        if len(sources) == 1:
            assert target == f"/opt/scoremri/{sources[0]}"


def test_whatever_the_installation_reads_is_copied():
    copied = {w for line in INSTRUCTIONS if line.startswith("COPY") for w in line.split()}
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert {"setup.cfg", "pyproject.toml", "scoremri_core", "gadgets", "config"} <= copied
    assert setup["metadata"]["long_description"].removeprefix("file: ") in copied
    assert set(setup["metadata"]["license_files"].split()) <= copied
    run = next(line for line in INSTRUCTIONS if line.startswith("RUN"))
    (extra,) = re.findall(r"\[(\w+)\]", run)
    assert extra in setup["options.extras_require"]
    assert "/share/gadgetron/config/" in run


def test_the_image_is_gadgetrons():
    (image,) = (line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM"))
    assert image.split("/")[-1].startswith("gadgetron_ubuntu_rt_cuda")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.xml")), ids=lambda p: p.name)
def test_every_chain_names_what_can_be_imported(path):
    chain = ElementTree.parse(path).getroot()
    assert chain.tag == "configuration"
    assert chain.findtext("version") == "2"
    assert chain.findall("stream/external")
    for node in chain.findall("stream/external/connect"):
        assert 0 < int(node.get("port")) < 65536
    for node in chain.findall("stream/external/execute"):
        assert node.get("type") == "python"
        assert callable(getattr(importlib.import_module(node.get("name")), node.get("target")))


def test_there_are_chains():
    assert {p.name for p in (ROOT / "config").iterdir()} >= {
        "score_recon.xml",
        "score_recon_generic.xml",
    }
