"""The residual U-Net of Ramzi et al. and its training with signed noise levels."""

import numpy as np
import pytest
import torch

from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.priors import load_prior, save_prior
from scoremri_core.priors.residual_unet import ResidualUnet, ResidualUnetPrior, spectral_norm
from scoremri_core.training.augment import complex_patch
from scoremri_core.training.batch_norm import recompute_batch_norm
from scoremri_core.training.loop import train
from scoremri_core.training.objective import signed_levels, signed_loss
from scoremri_core.training.settings import Settings
from scoremri_core.training.slices import Slice

TINY = {"channels": (8, 8, 12), "blocks": (1, 1, 1)}
RUN = {
    "batch": 4,
    "patch": 32,
    "warmup": 5,
    "architecture": "residual-unet",
    "loss": "signed",
    **TINY,
}


def convolutions(model):
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    return [layer.weight.detach() for layer in model.modules() if isinstance(layer, kinds)]


def flat(count=1):
    return [Slice(np.ones((48, 48), np.float16), "flat", "none")] * count


def test_the_papers_network():
    torch.manual_seed(0)
    model = ResidualUnet()
    assert model.config == {"channels": [32, 64, 128], "blocks": [2, 2, 2]}
    # two blocks of three convolutions at each of five stages, five projections, two
    # up-convolutions, the last one
    assert len(convolutions(model)) == 30 + 5 + 2 + 1
    # each convolution of a block has its batch norm, and no ReLU follows the third
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(norms) == 30
    assert isinstance(model.down[0][0].layers[-1], torch.nn.BatchNorm2d)
    with torch.no_grad():
        score = model.eval()(torch.randn(2, 2, 24, 32), torch.tensor([0.3, -0.3]))
    assert score.shape == (2, 2, 24, 32)


def test_the_spectral_norm_is_the_largest_singular_value():
    generator = torch.Generator().manual_seed(0)
    for shape in ((32, 64, 3, 3), (128, 8, 1, 1), (2, 16, 3, 3)):
        kernel = torch.randn(shape, generator=generator)
        expected = torch.linalg.matrix_norm(kernel.flatten(1), ord=2)
        torch.testing.assert_close(spectral_norm(kernel), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("sigma", [0.05, 3.0])
def test_the_output_is_divided_by_the_noise_level(sigma):
    """Without the map's own weight the network is the same function over |sigma|."""
    model = ResidualUnet(**TINY).eval()
    with torch.no_grad():
        for stage, index in ((model.down[0], 2), (model.down[-1], 8)):
            stage[0].layers[0].weight[:, index] = 0
            stage[0].project.weight[:, index] = 0
        x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
        one = model(x, torch.ones(1))
        for level in (sigma, -sigma):
            torch.testing.assert_close(model(x, torch.tensor([level])), one / sigma)


@pytest.mark.parametrize("shape", [(33, 46), (32, 32), (7, 5)])
def test_the_prior_takes_any_size(shape):
    torch.manual_seed(0)
    model = ResidualUnet(**TINY).eval().requires_grad_(False)
    prior = ResidualUnetPrior(model, {"name": "test"}, chunk=2)
    x = torch.randn(3, *shape, dtype=torch.complex64)
    sigma = torch.tensor([0.1, 0.5, 1.0])
    denoised = prior.denoise(x, sigma)
    assert denoised.shape == x.shape
    assert denoised.dtype == torch.complex64
    alone = prior.denoise(x[1:2], sigma[1:2])[0]
    torch.testing.assert_close(alone, denoised[1], rtol=1e-4, atol=1e-4)
    if shape == (32, 32):  # needs no padding: Tweedie's formula
        planes = torch.view_as_real(x).permute(0, 3, 1, 2)
        score = torch.view_as_complex(model(planes, sigma).permute(0, 2, 3, 1).contiguous())
        torch.testing.assert_close(
            (denoised - x) / sigma.view(-1, 1, 1) ** 2, score, rtol=1e-3, atol=1e-3
        )


def test_the_loss_is_least_at_the_score():
    """White Gaussian images of variance c: r = -x / (c + sigma^2), loss c / (c + sigma^2)."""
    c = 0.25
    clean = c**0.5 * torch.randn(64, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((64,), 0.5) * torch.tensor([1, -1]).repeat(32)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))

    def loss(factor):
        def score(x, sigma):
            return -factor * x / (c + sigma.view(-1, 1, 1, 1) ** 2)

        return float(signed_loss(score, clean, sigma, noise)[0])

    assert loss(1.0) == pytest.approx(c / (c + 0.5**2), rel=0.02)
    assert loss(0.0) == pytest.approx(1, rel=0.02)
    assert min(loss(0.9), loss(1.1)) > loss(1.0)


def test_levels_are_normal_and_never_zero():
    levels = signed_levels(20000, 0.5, torch.Generator().manual_seed(0))
    assert float(levels.std()) == pytest.approx(0.5, rel=0.02)
    assert float((levels < 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(levels.abs().min()) >= 0.0005


def test_training_learns_and_holds_the_spectral_norms(tmp_path):
    torch.manual_seed(0)
    settings = Settings(steps=100, learning_rate=1e-2, ema_decay=0.9, **RUN)
    untrained = settings.network().eval()
    model = train(flat(), tmp_path, settings)
    assert isinstance(model, ResidualUnet)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    last = settings.network()
    last.load_state_dict(state["model"])
    for kernel in convolutions(last):
        assert float(torch.linalg.matrix_norm(kernel.flatten(1), ord=2)) == pytest.approx(
            2, rel=0.03
        )
    # the moving average of kernels of norm 2 has a norm a little below
    for kernel in convolutions(model):
        assert 1.6 < float(torch.linalg.matrix_norm(kernel.flatten(1), ord=2)) < 2.06

    rng = np.random.default_rng(5)
    patches = np.stack([complex_patch(flat()[0].image, 32, rng) for _ in range(16)])
    clean = torch.view_as_real(torch.from_numpy(patches)).permute(0, 3, 1, 2)
    sigma = signed_levels(16, 0.5, torch.Generator().manual_seed(7))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (float(signed_loss(m, clean, sigma, noise)[0]) for m in (untrained, model))
    assert before > 0.9
    assert after < 0.5


def test_the_statistics_of_batch_norm_are_those_of_the_average():
    """Of the first layer: mean and variance of its convolution over the batches given."""
    torch.manual_seed(0)
    network = ResidualUnet(**TINY).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean)  # of other weights
    batches = [(3 * torch.randn(2, 2, 32, 32) + i, 0.1 + torch.rand(2)) for i in range(4)]
    recompute_batch_norm(network, iter(batches))
    assert not network.training
    convolution, norm = network.down[0][0].layers[:2]
    seen = [torch.cat((x, s.view(-1, 1, 1, 1).expand(-1, 1, 32, 32)), 1) for x, s in batches]
    with torch.no_grad():
        features = [convolution(x) for x in seen]
    means = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    variances = torch.stack([f.var((0, 2, 3)) for f in features]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=0.02, atol=0.02)  # bfloat16
    torch.testing.assert_close(norm.running_var, variances, rtol=0.02, atol=0.02)


def test_spectral_norms_may_be_left_free(tmp_path):
    settings = Settings(steps=3, learning_rate=0.1, spectral_norm=False, **RUN)
    train(flat(), tmp_path, settings)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    kernels = [k for name, k in state.items() if name.endswith("weight") and k.ndim == 4]
    assert any(abs(float(spectral_norm(kernel)) - 2) > 0.2 for kernel in kernels)


def test_a_resumed_run_is_the_same_as_an_uninterrupted_one(tmp_path):
    settings = Settings(steps=6, checkpoint_every=3, **RUN)

    def stop(step, _):
        if step == 4:
            raise KeyboardInterrupt

    whole = train(flat(), tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        train(flat(), tmp_path / "parts", settings, stop)
    parts = train(flat(), tmp_path / "parts", settings)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_a_run_of_another_network_is_not_resumed(tmp_path):
    train(flat(), tmp_path, Settings(steps=1, **RUN))
    other = {**RUN, "architecture": "unet", "loss": "denoising"}
    with pytest.raises(InputError, match=r"checkpoint\.pt: expected the run of a network"):
        train(flat(), tmp_path, Settings(steps=2, **other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vnet"}, "expected one of unet, residual-unet"),
        ({"architecture": "residual-unet", "loss": "l1"}, "expected one of denoising, signed"),
        ({"loss": "signed"}, "'residual-unet'"),
        ({"signed_sd": 0.0}, "signed_sd is 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**changes)


def test_the_log_normal_loss_trains_it_as_well(tmp_path):
    settings = Settings(steps=2, **{**RUN, "loss": "denoising"})
    assert settings.sigma_range == (0.003, 6.0)
    assert isinstance(train(flat(), tmp_path, settings), ResidualUnet)


@pytest.fixture
def stored(tmp_path):
    """A network with batch statistics of its own, on disk."""
    torch.manual_seed(0)
    model = ResidualUnet(**TINY)
    model(torch.randn(4, 2, 16, 16), torch.full((4,), 0.5))
    path = tmp_path / "score.safetensors"
    save_prior(path, model.eval(), {"variance_scale": 1.5}, half=False)
    return path, model


def test_weights_and_card_come_back(stored):
    path, model = stored
    prior = load_prior(path)
    assert isinstance(prior, ResidualUnetPrior)
    assert prior.card["architecture"] == "residual-unet"
    assert prior.variance_scale == 1.5
    assert prior.name == "score"
    x = torch.randn(2, 18, 20, dtype=torch.complex64)
    sigma = torch.tensor([0.1, 1.0])
    expected = ResidualUnetPrior(model.requires_grad_(False), {"name": "score"}).denoise(x, sigma)
    torch.testing.assert_close(prior.denoise(x, sigma), expected)


@pytest.mark.parametrize("sampler", ["posterior", "hmc"])
def test_it_is_a_prior_for_the_samplers(stored, sampler):
    rng = np.random.default_rng(0)
    kspace = to_kspace(np.ones((1, 18, 20)) + 0.05 * rng.standard_normal((1, 18, 20)))
    kspace[:, ::3] = 0
    result = reconstruct(
        kspace,
        noise_covariance=[[0.005]],
        prior=str(stored[0]),
        sampler=sampler,
        steps=3,
        samples=2,
        maps=np.ones((1, 18, 20), np.complex64),
        device="cpu",
    )
    # an untrained network may end far from the data: then a classical image comes, marked
    assert result.info.evaluations >= 3
    assert "residual of the samples" in (result.info.reason or "residual of the samples")
    assert result.info.prior == "score"
    assert np.isfinite(result.mean).all()
    assert result.info.reason is not None or np.isfinite(result.std).all()
