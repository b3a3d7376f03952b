"""The scores see what is wrong with samples, and nothing where nothing is."""

import pytest
import torch

from scoremri_core.studies.validate.agreement import scores
from scoremri_core.studies.validate.closed_form import ClosedForm
from scoremri_core.studies.validate.validation import ClosedFormCase

SIDE, SIGMA_N, TRUTHS, SAMPLES = 8, 0.2, 40, 79


def measured(change, separation=None):
    """Scores of exact draws after a change to them, (samples, mean) to samples."""
    prior, operator = ClosedFormCase("", SIDE, SIGMA_N, separation).problem()
    closed = ClosedForm(prior, operator, SIGMA_N)
    generator = torch.Generator().manual_seed(2)
    truths = prior.sample(TRUTHS, generator)
    e = torch.randn(TRUTHS, 4, SIDE, SIDE, 2, generator=generator)
    data = operator.forward(truths[None, :, None])[0]
    data = data + SIGMA_N * operator.mask[0, 0] * torch.view_as_complex(e)
    posterior = closed.given(data)
    samples = change(posterior.sample(SAMPLES, generator), posterior.mean()[:, None])
    return scores(samples, truths.flatten(1), data, closed, (SIDE, SIDE))


def test_exact_draws_are_calibrated():
    found = measured(lambda x, mean: x)
    assert found["mean_error"] < 0.05
    assert found["mean_error_over_floor"] == pytest.approx(1, abs=0.15)
    assert found["sd_ratio"] == pytest.approx(1, abs=0.01)
    assert found["covariance_error"] < 0.05
    for level in (50, 90, 95):
        assert found[f"pixel_{level}"] == pytest.approx(level / 100, abs=0.02)
        assert found[f"region_{level}"] == pytest.approx(level / 100, abs=0.04)
    assert found["rank_chi2"] < 2
    assert found["residual_chi2"] == pytest.approx(1, abs=0.05)
    assert "weight_error" not in found


def test_a_wide_posterior_is_seen():
    found = measured(lambda x, mean: mean + 1.2 * (x - mean))
    assert found["sd_ratio"] == pytest.approx(1.2, abs=0.01)
    assert found["covariance_error"] == pytest.approx(0.44, abs=0.05)  # 1.2^2 - 1
    assert found["pixel_90"] > 0.93
    assert found["rank_chi2"] > 3
    assert found["mean_error"] < 0.06


def test_a_shifted_mean_is_seen():
    shift = 0.1
    exact = measured(lambda x, mean: x)
    found = measured(lambda x, mean: x + shift * (x - mean).std())
    assert found["sd_ratio"] == pytest.approx(exact["sd_ratio"])
    assert found["mean_error"] == pytest.approx(shift, abs=0.05)
    assert found["mean_error_over_floor"] > 1.5


def test_a_wrong_correlation_is_seen_by_the_covariance():
    """Every pixel's sd is right: its deviations belong to other samples."""

    def shuffle(x, mean):
        generator = torch.Generator().manual_seed(3)
        order = torch.rand(x.shape, generator=generator).argsort(1)
        return mean + (x - mean).gather(1, order)

    found = measured(shuffle)
    assert found["sd_ratio"] == pytest.approx(1, abs=0.01)
    assert found["covariance_error"] > 0.3
    assert found["residual_chi2"] > 1.1


def test_a_lost_mode_is_seen_by_the_weights():
    exact = measured(lambda x, mean: x, separation=4.0)
    assert exact["weight_error"] < 0.06
    assert exact["rank_chi2"] < 2
    lost = measured(lambda x, mean: x[:, :1] + 0 * x, separation=4.0)  # all samples the same
    assert lost["weight_error"] > 0.2


def test_a_number_of_samples_without_exact_intervals_is_refused():
    with pytest.raises(ValueError, match="one less than a multiple of 40"):
        measured(lambda x, mean: x[:, :50])
