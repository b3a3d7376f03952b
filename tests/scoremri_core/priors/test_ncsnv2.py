"""NCSNv2: parameters and outputs of the public networks, blocks against closed forms, the prior."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.priors import load_prior, save_prior
from scoremri_core.priors.ncsnv2 import (
    LAYOUTS,
    ChainedResidualPooling,
    ConvMeanPool,
    InstanceNormPlus,
    MultiScaleFusion,
    NCSNv2,
    RefineBlock,
    ResidualBlock,
    ResidualConvUnits,
)
from scoremri_core.priors.ncsnv2_prior import NCSNv2Prior

DATA = Path(__file__).parents[2] / "data"
OUTPUTS = json.loads((DATA / "ncsnv2_outputs.json").read_text())


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def delta_kernels(module):
    """Every 3 x 3 convolution passes its input on."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.dirac_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)


@pytest.fixture
def model():
    """A small network that knows something of every parameter."""
    model = NCSNv2("plain", ngf=4, levels=5)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = 0.3 * noise(*parameter.shape, seed=i)
    model.sigmas.copy_(torch.tensor([10.0, 3.0, 1.0, 0.3, 0.1]))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("variant", LAYOUTS)
def test_parameters_are_named_and_shaped_as_in_the_public_code(variant):
    expected = {}
    for line in (DATA / "ncsnv2_parameters.txt").read_text().splitlines()[1:]:
        name, shape, variants = line.split()
        if variant in variants.split(","):
            expected[name] = tuple(map(int, shape.split("x")))
    got = {k: tuple(v.shape) for k, v in NCSNv2(variant, 2, 2, 3).state_dict().items()}
    assert got == expected


def wave(count, rate):
    return torch.sin(rate * torch.arange(count, dtype=torch.float64) + rate)


@pytest.mark.parametrize("case", OUTPUTS, ids=lambda case: f"{case['variant']}-{case['size']}")
def test_outputs_are_those_of_the_public_code(case):
    """As computed by the networks of csgm-mri-langevin, in double precision, odd sizes included."""
    model = NCSNv2(case["variant"], 2, 2, 3).double().eval()
    state = model.state_dict()
    for i, name in enumerate(sorted(state)):
        value = state[name]
        scale = 1 if value.ndim == 1 else 2 / math.sqrt(value[0].numel())
        state[name] = (scale * wave(value.numel(), 1 + i / 100)).view(value.shape)
    state["sigmas"] = torch.tensor([10.0, 1.0, 0.1], dtype=torch.float64)
    model.load_state_dict(state)
    x = wave(2 * math.prod(case["size"]), 0.37).view(1, 2, *case["size"])
    with torch.no_grad():
        out = model(x, torch.tensor([1]))[0]
    assert out.norm().item() == pytest.approx(case["norm"], rel=1e-8)
    for y, x, real, imaginary in case["pixels"]:
        assert out[:, y, x].tolist() == pytest.approx([real, imaginary], abs=1e-8)


def test_score_is_one_output_over_sigma(model):
    x = noise(3, 2, 20, 17)
    levels = torch.tensor([0, 2, 4])
    torch.testing.assert_close(
        model(x, levels) * model.sigmas[levels].view(-1, 1, 1, 1), model.unscaled(x)
    )


def test_images_are_shifted_unless_they_were_rescaled(model):
    other = NCSNv2(**{**model.config, "rescaled": True})
    other.load_state_dict(model.state_dict())
    x = noise(1, 2, 16, 16)
    torch.testing.assert_close(model.unscaled(x), other.unscaled(2 * x - 1))


def test_instance_norm_plus_is_its_formula():
    layer = InstanceNormPlus(5)
    for i, parameter in enumerate(layer.parameters()):
        parameter.data = noise(5, seed=i)
    x = (2 * noise(2, 5, 7, 6) + torch.arange(5).view(-1, 1, 1)).double()
    alpha, gamma, beta = (
        p.detach().double().numpy() for p in (layer.alpha, layer.gamma, layer.beta)
    )
    for image, out in zip(x.numpy(), layer.double()(x).detach().numpy(), strict=True):
        mean = image.mean((1, 2))
        own = (image - mean[:, None, None]) / np.sqrt(image.var((1, 2)) + 1e-5)[:, None, None]
        across = (mean - mean.mean()) / np.sqrt(mean.var(ddof=1) + 1e-5)
        expected = (own.T + alpha * across) * gamma + beta
        np.testing.assert_allclose(out, expected.T, atol=1e-12)


def test_pooling_is_the_mean_of_blocks_and_drops_an_odd_line():
    layer = ConvMeanPool(1, 1, 3)
    delta_kernels(layer)
    x = noise(1, 1, 7, 10)
    blocks = x[0, 0, :6].reshape(3, 2, 5, 2).mean((1, 3))
    torch.testing.assert_close(layer(x)[0, 0], blocks)


def test_residual_block_without_its_second_convolution_is_its_shortcut():
    block = ResidualBlock(2, 4, dilation=1, down=True)
    torch.nn.init.zeros_(block.conv2.conv.weight)
    torch.nn.init.zeros_(block.conv2.conv.bias)
    x = noise(1, 2, 8, 6)
    weight, bias = block.shortcut.conv.weight, block.shortcut.conv.bias
    torch.testing.assert_close(block(x), F.conv2d(F.avg_pool2d(x, 2), weight, bias))


def test_dilated_blocks_keep_the_size_and_see_far():
    block = ResidualBlock(2, 4, dilation=4, down=True)
    assert block(noise(1, 2, 11, 9)).shape == (1, 4, 11, 9)
    assert block.shortcut.dilation == block.conv1.dilation == block.conv2.dilation == (4, 4)


def test_residual_units_add_to_what_they_are_given():
    units = ResidualConvUnits(3, 2)
    delta_kernels(units)
    x = noise(1, 3, 5, 5)
    once = x + F.elu(F.elu(x))
    torch.testing.assert_close(units(x), once + F.elu(F.elu(once)))


def test_chained_pooling_takes_maxima_over_5_and_9_pixels():
    pooling = ChainedResidualPooling(2)
    delta_kernels(pooling)
    x = noise(1, 2, 12, 13)
    h = F.elu(x)
    expected = h + F.max_pool2d(h, 5, 1, 2) + F.max_pool2d(h, 9, 1, 4)
    torch.testing.assert_close(pooling(x), expected)


def test_fusion_aligns_corners():
    """A ramp from corner to corner is the same ramp at every size."""

    def ramp(ny, nx):
        y, x = torch.meshgrid(torch.linspace(0, 1, ny), torch.linspace(0, 2, nx), indexing="ij")
        return (y + x)[None, None]

    fusion = MultiScaleFusion([1, 1], 1)
    delta_kernels(fusion)
    torch.testing.assert_close(fusion([ramp(9, 7), ramp(4, 3)]), 2 * ramp(9, 7))


def test_refine_block_has_as_many_units_as_it_is_told():
    assert RefineBlock([2], 2, 3).output_convs.units == 3
    assert not hasattr(RefineBlock([2], 2, 1), "msf")


def test_too_small_an_image_is_refused():
    model = NCSNv2("deepest", 2, 2, 3)
    assert model.unscaled(noise(1, 2, 8, 16)).shape == (1, 2, 8, 16)
    with pytest.raises(InputError, match="image of 8 x 15"):
        model.unscaled(noise(1, 2, 8, 15))


def test_unknown_variant_lists_the_known():
    with pytest.raises(InputError, match="plain, deeper, deepest"):
        NCSNv2("deep")


def prior_of(model):
    return NCSNv2Prior(model, {"name": "test"}, chunk=2)


def images(*shape):
    return torch.view_as_complex(noise(*shape, 2))


def test_denoiser_is_tweedies_formula_with_the_parts_as_channels(model):
    torch.nn.init.zeros_(model.end_conv.weight)
    model.end_conv.bias.copy_(torch.tensor([0.25, -2.0]))
    x, sigma = images(3, 18, 21), torch.tensor([0.2, 1.0, 7.0])
    expected = x + sigma.view(-1, 1, 1) * (0.25 - 2j)
    torch.testing.assert_close(prior_of(model).denoise(x, sigma), expected)


def test_denoiser_at_a_level_uses_the_score_of_that_level(model):
    x = images(5, 16, 19)
    planes = torch.stack((x.real, x.imag), 1)
    sigma = model.sigmas
    denoised = planes + sigma.view(-1, 1, 1, 1) ** 2 * model(planes, torch.arange(5))
    got = prior_of(model).denoise(x, sigma)
    torch.testing.assert_close(torch.stack((got.real, got.imag), 1), denoised, rtol=1e-4, atol=1e-5)


def test_below_the_last_level_the_score_stays(model):
    x = images(2, 16, 16)
    prior = prior_of(model)
    moved = prior.denoise(x, torch.tensor([0.1, 0.05])) - x
    same = prior.denoise(x[1:], torch.tensor([0.1])) - x[1:]
    torch.testing.assert_close(moved[1:], same / 4, rtol=1e-3, atol=1e-5)


def test_images_do_not_depend_on_their_batch(model):
    prior = prior_of(model)
    x, sigma = images(5, 16, 16), torch.linspace(0.1, 2, 5)
    together = prior.denoise(x, sigma)
    for i in range(5):
        alone = prior.denoise(x[i : i + 1], sigma[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_only_complex_images_have_a_prior():
    with pytest.raises(InputError, match="3 channels"):
        NCSNv2Prior(NCSNv2("plain", 2, 3, 4), {"name": "colour"})


def test_stored_weights_keep_single_precision(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_prior(path, model, {"licence": "CC0"}, half=False)
    prior = load_prior(path)
    assert prior.card["architecture"] == "ncsnv2"
    assert prior.card["config"] == model.config
    assert prior.card["licence"] == "CC0"
    for name, value in model.state_dict().items():
        assert torch.equal(prior.model.state_dict()[name], value)
    x, sigma = images(2, 17, 16), torch.tensor([0.2, 2.0])
    assert torch.equal(prior.denoise(x, sigma), prior_of(model).denoise(x, sigma))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]


def test_a_card_of_another_configuration_is_refused(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_prior(path, model, {}, half=False)
    card = json.loads(path.with_suffix(".json").read_text())
    for config in ({**model.config, "ngf": 2}, {**model.config, "nonsense": 1}):
        path.with_suffix(".json").write_text(json.dumps({**card, "config": config}))
        with pytest.raises(InputError, match=r"mine\.safetensors: not the weights"):
            load_prior(path)


def test_what_is_no_architecture_is_not_stored(tmp_path):
    with pytest.raises(InputError, match="Linear"):
        save_prior(tmp_path / "mine.safetensors", torch.nn.Linear(1, 1), {})


def test_reconstructs_with_the_default_sampler(tmp_path):
    """Untrained, stored, loaded by its path: the front door samples with it."""
    torch.manual_seed(0)
    model = NCSNv2("plain", 2, 2, 4).eval().requires_grad_(False)
    model.sigmas.copy_(torch.tensor([2.0, 0.5, 0.1, 0.01]))
    path = tmp_path / "tiny.safetensors"
    save_prior(path, model, {}, half=False)
    truth = np.zeros((24, 19), np.complex64)
    truth[5:18, 4:15] = 1 + 0.5j
    maps = np.full((2, 24, 19), np.sqrt(0.5), np.complex64)
    rng = np.random.default_rng(0)
    kspace = to_kspace(maps * truth)
    kspace = kspace + 0.01 * rng.standard_normal((*kspace.shape, 2)).view(np.complex128)[..., 0]
    result = reconstruct(
        kspace,
        prior=str(path),
        maps=maps,
        noise_covariance=2 * 0.01**2 * np.eye(2),
        samples=4,
        steps=4,
        scale=1.0,
    )
    assert result.info.reason is None
    assert (result.info.prior, result.info.evaluations) == ("tiny", 4)
    # fully sampled: the data decide, whatever the prior says
    assert np.abs(result.mean[0] - truth).max() < 0.08
    assert 0.5 < np.median(result.std) / 0.01 < 1.5
