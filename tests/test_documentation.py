"""The documentation is complete and consistent with the code."""

import configparser
import re
from dataclasses import fields
from pathlib import Path

import pytest

from gadgets.commands import COMMANDS
from gadgets.stages.properties import OUTPUTS, Properties
from scoremri_core.samplers import SAMPLERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def text(name):
    return (DOCS / name).read_text()


def setup(section):
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser[section]


def test_every_command_is_documented():
    assert re.findall(r"^\| `([\w-]+)` \|", text("command-line.md"), re.M) == list(COMMANDS)


def test_every_property_is_documented_with_its_default():
    table = text("properties.md").partition("## Image attributes")[0]  # attributes follow
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`;,]+)", table, re.M))
    for field in fields(Properties):
        default = {None: "auto", "": "empty"}.get(field.default, field.default)
        assert rows[field.name].strip() == (default[0] if field.name == "outputs" else str(default))
    for known in (*SAMPLERS, *OUTPUTS):
        assert known in text("properties.md")


def test_every_extra_is_documented():
    named = re.findall(r"^\| `(\w+)` \|", text("index.md"), re.M)
    assert set(named) == set(setup("options.extras_require"))


@pytest.mark.parametrize("page", ["README.md", *sorted(p.name for p in DOCS.glob("*.md"))])
def test_every_link_is_valid(page):
    path = ROOT / page if page == "README.md" else DOCS / page
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_in_the_navigation(page):
    assert f": {page.name}\n" in (ROOT / "mkdocs.yml").read_text()


def test_docstrings_cite_the_numbered_equations_of_the_methods():
    numbers = re.findall(r"\\tag\{(\d+)\}", text("methods.md"))
    assert numbers == [str(i) for i in range(1, len(numbers) + 1)]
    code = "".join(path.read_text() for path in (ROOT / "scoremri_core").rglob("*.py"))
    cited = re.findall(r"docs/methods\.md,\s+Eq\.((?:,?\s+\(\d+\))+)", code)
    assert len(cited) == code.count("docs/methods.md")
    assert set(re.findall(r"\d+", "".join(cited))) == set(numbers)


def test_the_citation_has_this_version():
    version = setup("metadata")["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_has_the_commands_to_install_and_test():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert "    pip install . && scoremri demo" in lines
    assert "    pip install '.[test]' && pytest" in lines
