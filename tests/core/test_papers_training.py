"""Training as the papers do it: NCSNv2 at geometric levels, and their settings."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors import load_prior
from scoremri_core.training import PRESETS
from scoremri_core.training.card import write_prior
from scoremri_core.training.loop import CHECKPOINT, learning_rate, train
from scoremri_core.training.manifest import Source
from scoremri_core.training.objective import annealed_loss, geometric_levels
from scoremri_core.training.settings import Settings
from scoremri_core.training.slices import Slice

TINY = {
    "architecture": "ncsnv2", "width": 8, "depth": "plain", "levels": 40, "sigma_begin": 2.0,
    "sigma_end": 0.02, "batch": 8, "patch": 32, "learning_rate": 2e-3, "ema_decay": 0.95,
}  # fmt: skip


def test_levels_fall_geometrically_and_batches_hold_all_of_them():
    sigmas = Settings(**TINY).network().sigmas.numpy()
    assert float(sigmas[0]) == pytest.approx(2.0)
    assert float(sigmas[-1]) == pytest.approx(0.02)
    np.testing.assert_allclose(sigmas[1:] / sigmas[:-1], 100 ** (-1 / 39), rtol=1e-5)
    drawn = geometric_levels(torch.from_numpy(sigmas), 4000, torch.Generator().manual_seed(0))
    assert np.bincount(np.searchsorted(-sigmas, -drawn.numpy()), minlength=40) == pytest.approx(
        100, abs=2
    )


def test_the_loss_is_the_papers():
    """1/2 sigma^2 |s + e / sigma|^2, summed over an image: 0 at the noise itself."""
    clean, noise = torch.randn((2, 3, 2, 8, 8), generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor((0.1, 1.0, 5.0))
    exact = SimpleNamespace(unscaled=lambda x: (clean - x) / sigma.view(-1, 1, 1, 1))
    # the network computes in bfloat16, its input and output are not rounded
    assert float(annealed_loss(exact, clean, sigma, noise)[0]) == pytest.approx(0, abs=1e-6)
    blind = SimpleNamespace(unscaled=torch.zeros_like)
    loss, reported = annealed_loss(blind, clean, sigma, noise)
    assert float(loss) == pytest.approx(float(noise.square().sum()) / 6)
    assert float(reported) == pytest.approx(float(noise.square().mean()))


def test_a_trained_ncsnv2_is_a_prior_that_denoises(tmp_path):
    slices = [Slice(np.ones((48, 48), np.float16), "flat", "none")]
    train(slices, tmp_path, Settings(steps=150, **TINY))
    write_prior(
        tmp_path / CHECKPOINT, tmp_path / "mine.safetensors", [Source(tmp_path, "s", "train")]
    )
    prior = load_prior(tmp_path / "mine.safetensors")
    assert prior.card["sigma_range"] == [0.02, 2.0]
    clean = torch.full((4, 32, 32), 0.8 + 0.3j)
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(2))
    sigma = torch.full((4,), 0.5)
    noisy = clean + 0.5 * np.sqrt(2) * noise
    error = (prior.denoise(noisy, sigma) - clean).abs().square().mean()
    assert error < 0.3 * (noisy - clean).abs().square().mean()


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_plain_adam_at_a_constant_rate(name):
    options = {k: v for k, v in PRESETS[name].items() if k not in ("channels", "blocks")}
    settings = Settings(**options)
    optimiser = settings.optimiser(torch.nn.Linear(2, 2))
    assert type(optimiser) is torch.optim.Adam
    assert {learning_rate(step, settings) for step in (0, 100, 4999)} == {1e-4}


def test_what_is_not_of_the_architecture_is_refused():
    with pytest.raises(InputError, match="channels: expected width and depth, for an NCSNv2"):
        Settings(**TINY, channels=(8, 8)).network()
    with pytest.raises(InputError, match="expected two or more, falling"):
        Settings(**(TINY | {"sigma_begin": 0.01}))
    with pytest.raises(InputError, match="depth 'deepset': expected one of plain, deeper, deepest"):
        Settings(**(TINY | {"depth": "deepset"}))
