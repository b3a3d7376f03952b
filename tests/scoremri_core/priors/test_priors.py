"""The network as a prior, and weights on disk."""

import json
import threading

import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors import load_prior, save_prior, shipped_priors
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.ncsnv2_prior import NCSNv2Prior
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.priors.residual_unet import ResidualUnet, ResidualUnetPrior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.samplers.registry import find_sampler


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = DenoisingUnet((8, 8), (1, 1), embedding=16)
    for parameter in model.parameters():  # zero-initialised layers would hide mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.complex64)


def test_untrained_network_is_the_wiener_filter_of_its_preconditioning():
    model = DenoisingUnet((8, 8), (1, 1), embedding=16)
    x = torch.randn(2, 2, 16, 16)
    sigma = torch.tensor([0.1, 1.0])
    denoised, variance = model(x, sigma)
    gain = (0.3**2 / (0.3**2 + sigma**2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(denoised, gain * x)
    torch.testing.assert_close(variance, (gain * sigma.view(-1, 1, 1, 1) ** 2).expand(2, 1, 16, 16))


@pytest.mark.parametrize("shape", [(32, 32), (33, 31), (20, 45), (7, 5)])
def test_any_size_keeps_its_shape(model, shape):
    prior = NetworkPrior(model, {"name": "test"})
    denoised, variance = prior.denoise_with_variance(images(3, *shape), torch.full((3,), 0.1))
    assert denoised.shape == variance.shape == (3, *shape)
    assert denoised.dtype == torch.complex64
    assert bool((variance > 0).all())


def test_a_pixel_does_not_depend_on_what_is_far_away(model):
    prior = NetworkPrior(model, {"name": "test"}, precision=torch.float32)
    wide = images(1, 32, 128)
    narrow = prior.denoise(wide[..., :96], torch.tensor([0.2]))
    torch.testing.assert_close(
        prior.denoise(wide, torch.tensor([0.2]))[..., :48], narrow[..., :48], rtol=1e-4, atol=1e-5
    )


def test_images_do_not_depend_on_their_batch(model):
    prior = NetworkPrior(model, {"name": "test"}, chunk=4)
    x, sigma = images(6, 32, 32), torch.linspace(0.05, 1, 6)
    together = prior.denoise(x, sigma)
    for i in range(6):
        alone = prior.denoise(x[i : i + 1], sigma[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_a_prior_on_another_device_is_a_copy_and_leaves_this_one_where_it_is(model):
    """Another thread may be denoising with it."""
    prior, meta = NetworkPrior(model, {"name": "test"}), torch.device("meta")
    x, sigma = images(1, 16, 16), torch.tensor([0.2])
    before = prior.denoise(x, sigma)
    start, found = threading.Barrier(3), []

    def move():
        start.wait(10)
        found.append(prior.to(meta))

    threads = [threading.Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    start.wait(10)
    for _ in range(5):
        torch.testing.assert_close(prior.denoise(x, sigma), before, rtol=0, atol=0)
    for thread in threads:
        thread.join(10)
    assert found[0] is found[1] is prior.to(meta)
    assert {p.device for p in found[0].model.parameters()} == {meta}
    assert {p.device.type for p in prior.model.parameters()} == {"cpu"}
    assert prior.to(torch.device("cpu")) is prior
    assert found[0].to(meta) is found[0]
    assert (found[0].name, found[0].precision) == (prior.name, prior.precision)


@pytest.mark.cuda
def test_a_device_without_a_number_is_the_present_one(model):
    prior = NetworkPrior(model, {"name": "test"})
    there = prior.to(torch.device("cuda"))
    assert there is prior.to(torch.device("cuda:0")) is there.to(torch.device("cuda"))


SMALL = {
    "unet": lambda: NetworkPrior(DenoisingUnet((8, 8), (1, 1), embedding=16), {"name": "unet"}),
    "ncsnv2": lambda: NCSNv2Prior(NCSNv2("plain", ngf=4, levels=5), {"name": "ncsnv2"}),
    "residual-unet": lambda: ResidualUnetPrior(
        ResidualUnet((8, 8, 12), (1, 1, 1)), {"name": "residual-unet"}
    ),
    "default": lambda: load_prior("default"),
}


@pytest.mark.parametrize("kind", SMALL)
def test_images_are_to_the_last_bit_what_they_are_alone(kind):
    """On any processor: kernels round by the size of the batch, those for AMX above all."""
    torch.manual_seed(0)
    prior = SMALL[kind]()
    if kind != "default":
        for parameter in prior.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    prior.model.eval().requires_grad_(False)
    x, sigma = images(9, 48, 40), torch.linspace(0.05, 1, 9)
    together = prior.denoise(x, sigma)
    assert bool(together.isfinite().all())
    assert float((together - x).abs().max()) > 1e-3
    for count in (1, 3):
        parts = [prior.denoise(x[i : i + count], sigma[i : i + count]) for i in range(0, 9, count)]
        torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=0)


def test_weights_come_back_as_they_were_stored(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_prior(path, model, {"variance_scale": 2.5})
    prior = load_prior(path)
    assert prior.name == "mine"
    assert prior.variance_scale == 2.5
    for name, value in model.state_dict().items():
        torch.testing.assert_close(prior.model.state_dict()[name], value.half().float())


def test_changed_weights_are_refused(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_prior(path, model, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.safetensors.*SHA-256"):
        load_prior(path)


def test_missing_card_and_missing_field_are_named(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_prior(path, model, {})
    card = json.loads(path.with_suffix(".json").read_text())
    del card["architecture"]
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="'architecture'"):
        load_prior(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="card"):
        load_prior(path)


def test_unknown_prior_lists_the_shipped_ones():
    assert "default" in shipped_priors()
    with pytest.raises(InputError, match="default"):
        load_prior("no-such-prior")


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        ("posterior", NetworkPrior),
        ("pula", NetworkPrior),
        ("langevin", NCSNv2Prior),
        ("hmc", NetworkPrior),
    ],
)
def test_default_is_the_prior_that_goes_with_the_sampler(sampler, kind):
    drawing = find_sampler(sampler, None, {})
    assert type(drawing.prior("default")) is kind
    assert type(drawing.prior("unet")) is NetworkPrior
    assert type(drawing.prior("residual-unet")) is ResidualUnetPrior
    given = object()
    assert drawing.prior(given) is given
    assert find_sampler("none", None, {}).prior("no-such-prior") is None


@pytest.fixture(scope="module")
def default():
    return load_prior("default")


@pytest.fixture(scope="module")
def disc():
    """A smooth head-like disc, complex (96, 80)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 80), indexing="ij")
    return ((y**2 + x**2 < 0.6) * (0.7 + 0.2 * torch.cos(4 * x))).to(torch.complex64)


def noisy(clean, sigma):
    e = torch.randn(len(sigma), *clean.shape, 2, generator=torch.Generator().manual_seed(0))
    return clean + sigma.view(-1, 1, 1) * torch.view_as_complex(e)


def test_default_prior_predicts_its_own_error(default, disc):
    """The denoiser removes most of the noise and knows what is left."""
    sigma = torch.tensor([0.03, 0.1, 0.3, 1.0])
    denoised, variance = default.denoise_with_variance(noisy(disc, sigma), sigma)
    error = (denoised - disc).abs().square().mean((1, 2)) / 2
    assert bool((error < 0.35 * sigma**2).all())
    ratio = variance.mean((1, 2)) / error
    assert bool(((ratio > 0.3) & (ratio < 4)).all())


def test_default_prior_in_bfloat16_agrees_with_float32(default, disc):
    full = NetworkPrior(default.model, default.card, precision=torch.float32)
    sigma = torch.tensor([0.02, 0.3, 2.0])
    x = noisy(disc, sigma)
    expected, got = full.denoise(x, sigma), default.denoise(x, sigma)
    difference = (got - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert bool((difference < 0.01).all())


def test_error_spectrum_of_the_card_is_brought_to_any_size(model):
    spectrum = {"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[1, 1], [10, 0.1]]}
    prior = NetworkPrior(model, {"name": "test", "error_spectrum": spectrum})
    flat = prior.error_spectrum(0.05, (9, 12))
    torch.testing.assert_close(flat, torch.ones(9, 12))
    steep = prior.error_spectrum(1.0, (9, 12))
    assert float(steep.mean()) == pytest.approx(1)
    assert float(steep[4, 6] / steep[4, 0]) == pytest.approx(100)  # DC over the edge of k-space
    between = prior.error_spectrum(10**-0.5, (9, 12))
    assert float(between[4, 6] / between[4, 0]) == pytest.approx(10)
    assert NetworkPrior(model, {"name": "test"}).error_spectrum(1.0, (9, 12)) is None
