"""The U-Net that a CPU runs against the one that was trained."""

import pytest
import torch

from scoremri_core.priors import network
from scoremri_core.priors.fused_unet import FusedBlock, can_fuse, fused
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.priors.unet import DenoisingUnet

CPU = torch.device("cpu")

needs_kernels = pytest.mark.skipif(
    not can_fuse(CPU, torch.float32), reason="torch was built without oneDNN"
)


@pytest.fixture
def model():
    """No block of it does nothing, as those of a new one do."""
    torch.manual_seed(0)
    model = DenoisingUnet((16, 32), (2, 1), 32)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


@needs_kernels
def test_it_computes_the_same_at_every_noise_level(model):
    twin = fused(model, torch.float32)
    x = torch.randn(1, 2, 24, 16)
    # back to a level that it has left, too
    for sigma in (0.1, 1.0, 0.1):
        level = torch.tensor([sigma])
        with torch.no_grad():
            expected, found = model(x, level), twin(x, level)
        assert expected[1].std() > 0
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_weights_are_packed_for_the_shape_that_they_meet(model, monkeypatch):
    """Packed for another, they are reordered at every call, which takes longer than they do."""
    twin, shapes = fused(model, torch.float32), []
    pack = FusedBlock._packed

    def packed(block, weight, bias, shape):
        shapes.append(tuple(shape))
        return pack(block, weight, bias, shape)

    monkeypatch.setattr(FusedBlock, "_packed", packed)
    for side in (16, 16, 32):
        for sigma in (0.1, 0.1, 1.0):
            x, level = torch.randn(1, 2, side, side), torch.tensor([sigma])
            with torch.no_grad():
                torch.testing.assert_close(twin(x, level), model(x, level), rtol=1e-4, atol=1e-5)
    assert set(shapes) == {(1, 16, 8, 8), (1, 32, 4, 4), (1, 16, 16, 16), (1, 32, 8, 8)}
    # six blocks: both convolutions where the shape is new, one where the level is
    assert len(shapes) == 6 * (2 + 1 + 1 + 1 + 2 + 1)


@needs_kernels
def test_a_prior_follows_weights_that_change(model):
    prior = NetworkPrior(model, {"name": "tiny"}, precision=torch.float32)
    x, sigma = torch.randn(1, 16, 16, dtype=torch.complex64), torch.tensor([0.5])
    before = prior.denoise(x, sigma)
    with torch.no_grad():
        model.down[0][0].second.bias += 1
    after = prior.denoise(x, sigma)
    assert not torch.allclose(before, after)
    fresh = NetworkPrior(model, {"name": "tiny"}, precision=torch.float32)
    torch.testing.assert_close(after, fresh.denoise(x, sigma))


def test_without_its_kernels_the_plain_network_runs(model, monkeypatch):
    x, sigma = torch.randn(2, 16, 16, dtype=torch.complex64), torch.tensor([0.5, 0.1])
    fast = NetworkPrior(model, {"name": "tiny"}, precision=torch.float32).denoise(x, sigma)
    monkeypatch.setattr(network, "can_fuse", lambda device, precision: False)
    plain = NetworkPrior(model, {"name": "tiny"}, precision=torch.float32).denoise(x, sigma)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_fails_or_errs_is_not_used(monkeypatch):
    def fails(*given):
        raise RuntimeError("no such kernel")

    def errs(block, x, embedding):
        return x

    for wrong in (fails, errs):
        monkeypatch.setattr(FusedBlock, "forward", wrong)
        assert not can_fuse.__wrapped__(CPU, torch.float32)
