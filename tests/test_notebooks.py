"""The notebooks of the documentation run with small parameters."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from scoremri_core.score.metrics import psnr

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(name):
    return json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]


def python(cell):
    """Return the source of a cell without the magic commands of notebooks."""
    return re.sub(r"^%.*", "", "".join(cell["source"]), flags=re.M)


def executed(name, **smaller):
    """Run all code cells in one namespace, with other parameters."""
    space = {"__name__": "__main__"}
    for cell in cells(name):
        if cell["cell_type"] != "code":
            continue
        exec(compile(python(cell), f"{name}.ipynb", "exec"), space)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(smaller) <= set(space)
            space.update(smaller)
    return space


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_begin_with_parameters_and_hold_their_outputs(path):
    code = [cell for cell in cells(path.stem) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert any(cell["outputs"] for cell in code)
    assert not re.search(r"/(home|root|tmp|work|usr)/", path.read_text())
    assert code[0]["metadata"]["tags"] == ["parameters"]
    for cell in code:
        ast.parse(python(cell))
    assert f"examples/{path.name}" in (EXAMPLES.parent / "examples.md").read_text()


def test_an_array_becomes_a_report(tmp_path):
    space = executed("from_array_to_report", size=64, samples=2, steps=4, folder=str(tmp_path))
    text = (tmp_path / "report.html").read_text()
    (data,) = re.findall(r'type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert len(json.loads(data)["frames"][0]["panels"]) == 6
    assert "<h2>Prior default</h2>" in text
    assert space["gain"] > 3


def test_samplers_agree_with_the_closed_form_posterior():
    steps = {"posterior": 20, "langevin": 30, "hmc": 20, "pula": 30}
    scores = executed("compare_samplers", size=24, samples=16, steps=steps)["scores"]
    assert set(scores) == set(steps)
    error, width, _ = scores["posterior"]
    assert error < 0.5
    assert 0.8 < width < 1.2


def test_a_prior_is_trained_and_used(tmp_path):
    small = {"heads": 3, "size": 48, "steps": 4, "batch": 2, "patch": 32, "channels": "8,8"}
    space = executed(
        "train_a_prior", folder=str(tmp_path / "run"), blocks="1,1", samples=2, levels=3, **small
    )
    assert space["result"].info.prior == "mine"
    assert (tmp_path / "run" / "mine.json").exists()
    assert np.isfinite(psnr(space["mean"], space["truth"]))
