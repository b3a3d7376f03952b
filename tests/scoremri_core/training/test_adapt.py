"""Fitting a prior to the images of a site."""

import numpy as np
import pytest
import torch
from textures import textures

from scoremri_core.errors import InputError
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.priors.storage import load_prior, save_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training.adapt import HeldBack, adapt, draw_images, settings_for, write_adapted
from scoremri_core.training.loop import LOG
from scoremri_core.training.manifest import Source
from scoremri_core.training.settings import Settings

SOURCES = [Source("a.h5", "a", "train"), Source("b.h5", "b", "val")]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A network with its first weights, the identity."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("prior") / "start.safetensors"
    save_prior(path, DenoisingUnet((16, 16), (1, 1)), {})
    return str(path)


def settings(start, every=10):
    return Settings(
        steps=1000, batch=4, patch=32, channels=(16, 16), blocks=(1, 1), start=start,
        checkpoint_every=every, ema_decay=0.9, schedule="constant",
    )  # fmt: skip


def test_prior_learns_and_the_card_says_what(start, tmp_path):
    images = textures()
    outcome = adapt(images[2:], images[:2], tmp_path / "run", settings(start), seconds=6)
    assert outcome.held_back[1] < 0.9 * outcome.held_back[0]
    write_adapted(tmp_path / "run", tmp_path / "mine.safetensors", SOURCES, outcome)
    prior = load_prior(tmp_path / "mine.safetensors")
    assert prior.card["adaptation"]["held_back_error"] == list(outcome.held_back)
    assert prior.card["start"]["name"] == "start"
    held = HeldBack(images[:2], 32)
    assert held.error(prior, "cpu") == pytest.approx(outcome.held_back[1], rel=0.02)
    # resumed, it goes on from there
    steps = len((tmp_path / "run" / LOG).read_text().splitlines())
    again = adapt(images[2:], images[:2], tmp_path / "run", settings(start), seconds=0)
    assert len((tmp_path / "run" / LOG).read_text().splitlines()) == steps + 1
    assert again.held_back[1] <= outcome.held_back[1]


def test_no_gain_no_prior(start, tmp_path, monkeypatch):
    """Noise cannot be learned; ends without waiting for the time limit."""
    monkeypatch.setattr("scoremri_core.training.adapt.PATIENCE", 1)
    monkeypatch.setattr("scoremri_core.training.adapt.HeldBack.error", lambda *_: 0.5)
    images = textures()
    with pytest.raises(InputError, match="was not written"):
        adapt(images[2:], images[:2], tmp_path, settings(start, 2), seconds=60)


def test_drawn_images_have_the_variance_of_the_prior():
    variance = torch.linspace(0.5, 2, 16)[:, None].expand(16, 16)
    images = draw_images(GaussianPrior(variance), 200, 16, levels=60)
    power = np.mean(np.abs(np.fft.fftshift(np.fft.fft2(images, norm="ortho"))) ** 2, axis=(0, 2))
    expected = variance[:, 0].numpy()
    np.testing.assert_allclose(power / power.mean(), expected / expected.mean(), rtol=0.12)


def test_settings_are_those_of_the_prior():
    found = settings_for("default", textures(), "cpu")
    assert found.blocks == (2, 1, 1, 2)
    assert found.patch % 16 == 0
    with pytest.raises(InputError, match="architecture unet"):
        settings_for("ncsnv2", textures(), "cpu")
