"""Export as TorchScript."""

import io

import pytest
import torch

from scoremri_core.priors import load_prior, save_prior
from scoremri_core.priors.base import denoise
from scoremri_core.priors.edm import EdmUnet
from scoremri_core.priors.export import to_torchscript
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.unet import DenoisingUnet

# what torch says of TorchScript, up to 2.13 and since
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*torch.jit.*:{kind}")
    for kind in ("DeprecationWarning", "FutureWarning")
]


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
def test_exported_module_denoises_as_the_prior(kind, tmp_path):
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
