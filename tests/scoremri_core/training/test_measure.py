"""What a card tells of a prior: its error, its images' spectrum, the width of its samples."""

import numpy as np
import pytest
import torch
from textures import textures

from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.priors.storage import read_card, shipped_priors
from scoremri_core.training import measure, width
from scoremri_core.training.card import limits


def test_the_error_by_frequency_is_the_error(monkeypatch):
    """The identity as a denoiser: its error is white, of the variance of the noise."""

    class Identity:
        def denoise(self, x, sigma):
            return x

    monkeypatch.setattr(measure, "LEVELS", (0.1, 1.0))
    found = measure.denoiser_error(Identity(), textures(), size=64)
    for row, mse, power in zip(
        found["denoiser_error"],
        found["error_spectrum"]["mse"],
        found["error_spectrum"]["power"],
        strict=True,
    ):
        assert row["mse_over_sigma2"] == pytest.approx(1, rel=0.02)
        assert row["predicted_variance"] == pytest.approx(row["sigma"] ** 2, rel=0.02)
        np.testing.assert_allclose(mse, row["sigma"] ** 2, rtol=0.2)
        np.testing.assert_allclose(power, 1, rtol=0.2)


def test_the_images_spectrum_is_found(monkeypatch):
    """Of white noise, and of a constant: all of it at DC, whose ring has five members."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(24, 64, 64)) + 1j * rng.normal(size=(24, 64, 64))
    monkeypatch.setattr(measure, "_patches", lambda *arguments: noise)
    np.testing.assert_allclose(measure.image_spectrum([], 64)["variance"], 1, rtol=0.2)
    monkeypatch.setattr(measure, "_patches", lambda *arguments: np.full((1, 64, 64), 2.0))
    found = measure.image_spectrum([], 64)
    assert found["variance"] == pytest.approx([64**2 * 4 / 2 / 5] + [0] * 11, rel=1e-3)
    assert found["frequencies"] == sorted(found["frequencies"])


def test_the_factors_of_a_prior_that_is_right_are_one(monkeypatch):
    """A Gaussian prior knows its own variance: nothing to inflate, nothing to widen."""
    monkeypatch.setattr(width, "SCANS", 1)
    monkeypatch.setattr(width, "INFLATIONS", (1.0, 30.0))
    monkeypatch.setattr(width, "VARIANCE_SCALES", (0.1, 1.0, 10.0))
    k = np.hypot(*np.meshgrid(*(np.arange(48) - 24,) * 2))
    spectrum = torch.from_numpy(30 / (1 + k**2)).float()
    truth = GaussianPrior(spectrum).sample(1, torch.Generator().manual_seed(0))[0].numpy()
    unit = np.percentile(np.abs(truth), 99)
    truth, prior = truth / unit, GaussianPrior(spectrum / unit**2)
    real = width._simulated_scan
    monkeypatch.setattr(width, "scanned_image", lambda *arguments: truth)
    monkeypatch.setattr(width, "_simulated_scan", lambda s, i, rng: real(s, i, rng, 48, 4))
    done = []
    found = width.calibrate_variance(prior, textures(), progress=done.append)
    assert done == [1, 2, 3, 4] == list(range(1, width.reconstructions() + 1))
    assert found["inflation"] == 1.0
    # one scan tells it no better
    assert found["variance_scale"] == pytest.approx(1, abs=0.35)
    widths = {row["variance_scale"]: row for row in found["variance_calibration"][2:]}
    assert widths[0.1]["sd_over_error"] < 0.8 < 1.5 < widths[10.0]["sd_over_error"]


@pytest.mark.parametrize(
    ("scores", "lowest"), [([4, 1, 0, 1], 2), ([0, 1, 4, 9], 0), ([4, 1, 4, 9], 1)]
)
def test_the_best_candidate_is_refined(scores, lowest):
    found = width._lowest(np.arange(4.0), np.array(scores, float))
    assert found == pytest.approx(lowest)
    shifted = (np.arange(4.0) - 1.3) ** 2
    assert width._lowest(np.arange(4.0), shifted) == pytest.approx(1.3)


@pytest.mark.parametrize("prior", shipped_priors())
def test_photographs_are_not_counted_as_a_subject(prior):
    card = read_card(prior)
    trained = limits(card)[1]
    assert trained == card["limits"][1]
    assert trained.startswith("Trained on 12 subjects (FLAIR, T1W, T2S, T2W) and photographs;")


def test_a_card_without_photographs_names_subjects_only():
    data = [{"subject": name, "contrasts": "T1W", "licence": "CC0"} for name in ("a", "b", "b")]
    trained = limits({"training_data": data, "validation_data": data[:1]})[1]
    assert trained.startswith("Trained on 2 subjects (T1W);")
