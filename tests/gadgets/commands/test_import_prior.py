import hashlib
import json

import pytest
import torch

from scoremri_core.priors import load_prior
from scoremri_core.priors.ncsnv2 import NCSNv2

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore:.*TorchScript archive.*")


@pytest.fixture
def checkpoint(tmp_path):
    """A file such as the public code writes, of a tiny network."""

    def write(channels=2):
        model = NCSNv2("deepest", 2, channels, 4)
        model.sigmas.copy_(torch.tensor([8.0, 2.0, 0.5, 0.125]))
        average = {name: p.data / 2 for name, p in model.named_parameters()}
        path = tmp_path / "checkpoint_100000.pth"
        state = torch.nn.DataParallel(model).state_dict()
        torch.save([state, {}, 12, 100_000, average], path)
        return path, average

    return write


@pytest.mark.parametrize("name", ["brain.safetensors", "brain"])
def test_a_checkpoint_becomes_a_prior(run, checkpoint, tmp_path, name):
    path, average = checkpoint()
    code, out, err = run("import-prior", path, "-o", tmp_path / "new" / name)
    assert (code, out) == (0, "")
    assert "NCSNv2 (deepest), moving average, 4 noise levels from 8 to 0.125" in err
    stored = tmp_path / "new" / "brain.safetensors"
    assert sorted(p.name for p in stored.parent.iterdir()) == ["brain.json", "brain.safetensors"]

    card = json.loads(stored.with_suffix(".json").read_text())
    assert card["architecture"] == "ncsnv2"
    assert card["config"] == {
        "variant": "deepest", "ngf": 2, "channels": 2, "levels": 4, "rescaled": False,
    }  # fmt: skip
    assert (card["sigma_range"], card["sigma_levels"]) == ([0.125, 8.0], 4)
    assert card["source"] == {
        "file": "checkpoint_100000.pth",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weights": "moving average",
        "epoch": 12,
        "step": 100_000,
    }
    assert "fastMRI" in card["licence"]

    prior = load_prior(stored)
    assert prior.name == "brain"
    for key, value in average.items():
        assert torch.equal(prior.model.state_dict()[key], value)


def test_licence_and_input_range_can_be_given(run, checkpoint, tmp_path):
    path, _ = checkpoint()
    output = tmp_path / "mine.safetensors"
    code, _, _ = run("import-prior", path, "-o", output, "--rescaled", "--licence", "CC0")
    assert code == 0
    card = load_prior(output).card
    assert (card["licence"], card["config"]["rescaled"]) == ("CC0", True)


def test_colour_images_are_refused_and_leave_nothing(run, checkpoint, tmp_path):
    path, _ = checkpoint(channels=3)
    code, _, err = run("import-prior", path, "-o", tmp_path / "mine.safetensors")
    assert code == 2
    assert "3 channels" in err
    assert list(tmp_path.iterdir()) == [path]


def test_prior_is_exported(run, checkpoint, tmp_path):
    path, _ = checkpoint()
    stored, module = tmp_path / "mine.safetensors", tmp_path / "mine.pt"
    assert run("import-prior", path, "-o", stored)[0] == 0
    assert run("export", stored, "-o", module)[0] == 0
    assert torch.jit.load(module).denoise(torch.ones(1, 8, 8) + 0j, torch.ones(1)).shape == (
        1,
        8,
        8,
    )
    code, _, err = run("import-prior", module, "-o", tmp_path / "again.safetensors")
    assert (code, err) == (2, f"scoremri: {module}: expected a checkpoint written by torch.save\n")
