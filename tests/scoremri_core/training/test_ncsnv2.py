"""Training an NCSNv2 as Song and Ermon do, and the papers' settings by name."""

import math

import numpy as np
import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.training import PRESETS
from scoremri_core.training.loop import learning_rate, train
from scoremri_core.training.objective import annealed_loss, geometric_levels
from scoremri_core.training.settings import Settings
from scoremri_core.training.slices import Slice

RUN = {
    "architecture": "ncsnv2",
    "width": 8,
    "depth": "plain",
    "levels": 10,
    "sigma_begin": 3.0,
    "sigma_end": 0.02,
    "batch": 4,
    "patch": 32,
    "warmup": 5,
}


class OfAGaussian(NCSNv2):
    """Of white images of variance 0.25: the score times sigma, times `gain`."""

    gain = 1.0
    sigma = 0.5

    def unscaled(self, x):
        return -self.gain * self.sigma * x / (0.25 + self.sigma**2)


def test_the_levels_are_geometric():
    sigmas = Settings(**RUN).network().sigmas.numpy()
    assert len(sigmas) == 10
    np.testing.assert_allclose(sigmas[[0, -1]], [3.0, 0.02], rtol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(sigmas)), math.log(0.02 / 3) / 9, rtol=1e-5)


def test_every_level_is_drawn_as_often():
    sigmas = Settings(**RUN).network().sigmas
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([geometric_levels(sigmas, 16, generator) for _ in range(400)])
    counts = (drawn[:, None] == sigmas).sum(0)
    assert counts.sum() == len(drawn)
    np.testing.assert_allclose(counts, 640, rtol=0.1)


def test_the_loss_is_least_at_the_score():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 64, 2, 32, 32, generator=generator)
    clean = 0.5 * clean
    sigma = torch.full((64,), 0.5)
    model = OfAGaussian("plain", 4, 2, 3)
    losses = {}
    for model.gain in (0.9, 1.0, 1.1):
        losses[model.gain], mean = annealed_loss(model, clean, sigma, noise)
        assert float(losses[model.gain]) == pytest.approx(32 * 32 * float(mean), rel=1e-4)
    assert min(losses, key=losses.get) == 1.0
    # E (f + e)^2 = 1 - sigma^2 / (0.25 + sigma^2)
    assert float(losses[1.0]) / 32**2 == pytest.approx(0.5, rel=0.02)


def test_training_learns(tmp_path):
    slices = [Slice(np.ones((48, 48), np.float16), "flat", "none")]
    losses = []
    model = train(
        slices,
        tmp_path,
        Settings(steps=60, learning_rate=5e-3, ema_decay=0.9, **RUN),
        lambda step, loss: losses.append(loss),
    )
    assert isinstance(model, NCSNv2)
    assert losses[-1] < 0.75 * losses[0]


def test_the_papers_settings():
    """Of the public configurations; s = 50 is on images times 1e6, of the order of 100."""
    numbers = {name: dict(preset) for name, preset in PRESETS.items()}
    for sizes in ("channels", "blocks"):
        given = numbers["ramzi2020"][sizes]
        numbers["ramzi2020"][sizes] = tuple(map(int, given.split(",")))
    jalal, ramzi = Settings(**numbers["jalal2021"]), Settings(**numbers["ramzi2020"])
    assert (jalal.sigma_begin, jalal.sigma_end, jalal.levels) == (232, 0.0066, 2311)
    adam = jalal.optimiser(torch.nn.Linear(1, 1))
    assert type(adam) is torch.optim.Adam
    assert (adam.defaults["eps"], adam.defaults["weight_decay"]) == (1e-3, 0)
    for settings in (jalal, ramzi):
        assert {learning_rate(step, settings) for step in (0, 100, 4000)} == {1e-4}
        assert settings.from_json(settings.to_json()) == settings
    assert ramzi.signed_sd == 0.5
    assert ramzi.spectral_norm
    assert "--optimizer adam --adam-eps 0.001 --schedule constant" in jalal.command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma_end": 5.0}, "falling"),
        ({"levels": 1}, "two or more"),
        ({"depth": "abyss"}, "expected one of plain, deeper, deepest"),
        ({"ema_decay": 1.0}, "ema_decay is 1"),
        ({"loss": "signed"}, "'residual-unet'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**RUN | changes)


@pytest.mark.parametrize(
    ("changes", "message"), [({"channels": (8, 8)}, "width and depth"), ({"patch": 33}, "multiple")]
)
def test_sizes_of_another_network_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**RUN | changes).network()
