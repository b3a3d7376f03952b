"""Priors that others made or will read: U-Nets of EDM, and TorchScript modules."""

import io

import numpy as np
import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors import load_prior, save_prior
from scoremri_core.priors.base import denoise
from scoremri_core.priors.checkpoints import read_foreign
from scoremri_core.priors.edm import EdmPrior, EdmUnet
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.script import ScriptModule, ScriptPrior, to_torchscript
from scoremri_core.priors.unet import DenoisingUnet

# what torch says of TorchScript, up to 2.13 and since
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*torch.jit.*:{kind}")
    for kind in ("DeprecationWarning", "FutureWarning")
]


class Shrunk(torch.nn.Module):
    """The denoiser of white images of variance 0.25, of complex images or of planes."""

    def __init__(self, planes: bool):
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert x.is_complex() != self.planes
        gain = 0.25 / (0.25 + sigma**2)
        return x * (gain[:, None, None, None] if self.planes else gain[:, None, None])


def noisy(ny=21, nx=34):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, ny, nx, dtype=torch.complex64, generator=generator)


SIGMAS = torch.tensor([0.02, 0.3, 2.0])


def random(model):
    """No parameter at zero, and statistics as after training."""
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, 0.02 if p.ndim > 1 else 0.5, 0.1)
    if isinstance(model, NCSNv2):
        model.sigmas.copy_(torch.linspace(3, 0.05, len(model.sigmas)))
    return model.eval()


NETWORKS = {
    "unet": lambda: DenoisingUnet((8, 8), (1, 1), 8),
    "residual-unet": lambda: ResidualUnet((8, 8, 8), (1, 1, 1)),
    "ncsnv2": lambda: NCSNv2("plain", 8, 2, 5),
    "edm-unet": lambda: EdmUnet(32, 8, (1, 2), 1, (16,)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_prior_survives_export_and_import(kind, tmp_path):
    """Images of another batch and size than it was traced with, and of odd sides."""
    save_prior(tmp_path / "prior.safetensors", random(NETWORKS[kind]()), {}, half=False)
    prior = load_prior(tmp_path / "prior.safetensors")
    if kind == "unet":
        prior.precision = torch.float32
    archive = to_torchscript(prior)
    (tmp_path / "prior.pt").write_bytes(archive)
    expected = denoise(prior, noisy(), SIGMAS)
    module = torch.jit.load(io.BytesIO(archive))
    torch.testing.assert_close(module.denoise(noisy(), SIGMAS), expected, rtol=1e-3, atol=1e-4)
    # noise levels as BART gives them
    found = module(noisy(), SIGMAS.to(torch.complex64))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    checkpoint = read_foreign(tmp_path / "prior.pt")
    save_prior(tmp_path / "again.safetensors", checkpoint.model, {}, half=False)
    again = load_prior(tmp_path / "again.safetensors")
    assert isinstance(again, ScriptPrior)
    torch.testing.assert_close(denoise(again, noisy(), SIGMAS), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="already a TorchScript module"):
        to_torchscript(again)


@pytest.mark.parametrize("planes", [False, True])
def test_a_module_of_complex_images_or_of_planes_is_a_prior(planes, tmp_path):
    torch.jit.save(torch.jit.script(Shrunk(planes)), tmp_path / "shrunk.pt")
    found = read_foreign(tmp_path / "shrunk.pt")
    assert isinstance(found.model, ScriptModule)
    assert found.model.config["planes"] is planes
    prior = ScriptPrior(found.model, {"name": "shrunk"})
    expected = noisy() * (0.25 / (0.25 + SIGMAS**2))[:, None, None]
    torch.testing.assert_close(denoise(prior, noisy(), SIGMAS), expected)


def test_a_module_of_something_else_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "relu.pt")
    with pytest.raises(InputError, match=r"relu\.pt: expected denoise\(x, sigma\)"):
        read_foreign(tmp_path / "relu.pt")


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
    ("name", "told"),
    [
        ("model.map_label.weight", "no parameter of a DDPM"),
        ("model.enc.64x64_block0.skip.weight", "no parameter of a DDPM"),
    ],
)
def test_another_unet_of_edm_is_refused(edm, tmp_path, name, told):
    path = saved(tmp_path / "edm.pt", edm, **{name: torch.zeros(8, 8)})
    with pytest.raises(InputError, match=told):
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
