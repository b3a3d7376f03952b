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


def test_no_test_folder_is_named_like_a_package():
    """Such a folder would hide the package in an editable installation."""
    tests = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert not tests & {"gadgets", "scoremri_core"}
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))  # pytest imports them by their names
