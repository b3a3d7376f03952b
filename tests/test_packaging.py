import configparser
import importlib.metadata
from pathlib import Path

import scoremri_core

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for name in ("gadgets", "scoremri_core")
        for path in (ROOT / name).rglob("*.py")
    }
    assert set(setup["options"]["packages"].split()) == found | {"gadgets.config"}


def test_the_version_equals_that_of_the_distribution():
    assert scoremri_core.__version__ == importlib.metadata.version("scoremri")


def test_scripts_of_the_tests_lie_where_no_folder_hides_a_package():
    """A folder next to a script hides the package of that name in an editable installation."""
    scripts = [p for p in (ROOT / "tests").rglob("*.py") if "__main__" in p.read_text()]
    for folder in {path.parent for path in scripts} - {ROOT / "tests"}:
        names = {path.name for path in folder.iterdir() if path.is_dir()}
        assert not names & {"gadgets", "scoremri_core"}
