"""The public names of the package."""

import pydoc
import subprocess
import sys

import scoremri_core


def test_every_public_name_can_be_imported():
    for name in scoremri_core.__all__:
        assert getattr(scoremri_core, name).__name__ == name


def test_completion_shows_the_public_names():
    assert {*scoremri_core.__all__, "__version__"} <= set(dir(scoremri_core))


def test_help_shows_the_public_names():
    text = pydoc.plain(pydoc.render_doc(scoremri_core))
    assert all(name in text for name in scoremri_core.__all__)


def test_completion_does_not_load_torch():
    code = "import sys, scoremri_core; dir(scoremri_core); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
