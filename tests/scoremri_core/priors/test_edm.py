"""Checkpoints of EDM."""

import numpy as np
import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors.base import denoise
from scoremri_core.priors.checkpoints import read_foreign
from scoremri_core.priors.edm import EdmPrior, EdmUnet


def noisy(ny=21, nx=34):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, ny, nx, dtype=torch.complex64, generator=generator)


def random(model):
    """Set parameters that are not zero."""
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, 0.02 if p.ndim > 1 else 0.5, 0.1)
    return model.eval()


@pytest.fixture
def edm():
    return random(EdmUnet(64, 8, (1, 2, 2), 2, (16,)))


def saved(path, model, **changes):
    state = model.state_dict()
    # what EDM's own states hold beside the parameters
    state["model.enc.32x32_down.conv0.resample_filter"] = torch.full((1, 1, 2, 2), 0.25)
    state["model.map_augment.weight"] = torch.zeros(8, 9)
    torch.save(state | changes, path)
    return path


def test_sizes_of_an_edm_unet_follow_from_its_weights(edm, tmp_path):
    found = read_foreign(saved(tmp_path / "edm.pt", edm), sigma_data=0.3)
    assert found.weights == "last step"
    assert found.model.config == edm.config | {"sigma_data": 0.3}
    for name, value in edm.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    torch.save({"net": 1, "ema": edm.state_dict()}, tmp_path / "averaged.pt")
    assert read_foreign(tmp_path / "averaged.pt").weights == "moving average"


def test_an_edm_unet_is_preconditioned(edm):
    """At little noise it changes nothing, at much it knows no more than its bound."""
    prior = EdmPrior(edm, {"name": "edm"})
    x = noisy()
    torch.testing.assert_close(denoise(prior, x, torch.full((3,), 1e-4)), x, rtol=1e-2, atol=1e-2)
    # c_skip goes to zero, and c_in x to x / sigma
    near, far = (denoise(prior, s * x, torch.full((3,), s)) for s in (1e3, 1.01e3))
    assert float((near - far).abs().mean()) < 0.05 * float(near.abs().mean())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.map_label.weight", "no parameter of a DDPM"),
        ("model.enc.64x64_block0.skip.weight", "no parameter of a DDPM"),
    ],
)
def test_another_unet_of_edm_is_refused(edm, tmp_path, name, message):
    path = saved(tmp_path / "edm.pt", edm, **{name: torch.zeros(8, 8)})
    with pytest.raises(InputError, match=message):
        read_foreign(path)


def test_an_edm_unet_without_a_layer_is_refused(edm, tmp_path):
    state = {k: v for k, v in edm.state_dict().items() if "map_layer0" not in k}
    torch.save(state, tmp_path / "edm.pt")
    with pytest.raises(InputError, match=r"'model\.map_layer0\.bias' of a DDPM"):
        read_foreign(tmp_path / "edm.pt")


def test_attention_is_softmax_of_products(edm):
    """Of one head, against its definition."""
    block = edm.model.enc["16x16_block0"]
    assert block.attention
    x = torch.randn(1, block.after, 4, 4, generator=torch.Generator().manual_seed(0))
    h = block.norm2(x)
    q, k, v = block.qkv(h).reshape(1, block.after, 3, 16)[0].detach().numpy().transpose(1, 0, 2)
    logits = q.T @ k / np.sqrt(block.after)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    expected = v @ (weights / weights.sum(1, keepdims=True)).T
    attended = block.attended(x).detach().numpy()
    np.testing.assert_allclose(attended.reshape(block.after, 16), expected, rtol=1e-3, atol=1e-4)
