from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core import reconstruct
from scoremri_core.classical import mvue
from scoremri_core.coil_maps import estimate_coil_maps
from scoremri_core.evaluation import METHODS, Evaluation, averaged
from scoremri_core.fourier import to_image, to_kspace
from scoremri_core.metrics import psnr, reference_noise_variance
from scoremri_core.noise import covariance_from_edges, whiten, whitening_matrix
from scoremri_core.priors.gaussian import GaussianPrior

SHAPE = (64, 56)
NOISE = 100.0  # E|n|^2 in k-space


@pytest.fixture(scope="module")
def problem():
    """A draw of a Gaussian image with its spectrum, seen by four coils with noise."""
    rng = np.random.default_rng(5)

    def normal(*shape):
        return rng.normal(size=(*shape, 2)) @ [1, 1j] / np.sqrt(2)

    y, x = (np.arange(n) - n // 2 for n in SHAPE)
    spectrum = 1 / (3e-3 + (y[:, None] / SHAPE[0]) ** 2 + (x / SHAPE[1]) ** 2) ** 3
    image = to_image(np.sqrt(spectrum) * normal(*SHAPE))
    # Periodic, as the image is: nothing jumps at the border of the field of view.
    angles = 2 * np.pi * np.arange(4)[:, None, None] / 4
    near_y = np.cos(2 * np.pi * y[:, None] / SHAPE[0] - angles)
    near_x = np.cos(2 * np.pi * x / SHAPE[1] - 2 * angles)
    maps = np.exp(near_y + near_x + 1j * angles)
    maps /= np.linalg.norm(maps, axis=0)
    kspace = to_kspace(maps * image) + np.sqrt(NOISE) * normal(4, *SHAPE)
    return image, spectrum, kspace.astype(np.complex64)


def sampler(spectrum):
    """The posterior sampler with the true prior, in units of the image."""
    prior = GaussianPrior(torch.from_numpy((spectrum / 2 / 500**2).astype(np.float32)))
    return lambda kspace: reconstruct(
        kspace, prior=prior, samples=8, steps=20, scale=500.0, device="cpu"
    )


def posterior_mean(kspace, spectrum):
    """The Gaussian posterior's mean, solved in NumPy with the noise and maps of the front door."""
    covariance = covariance_from_edges(kspace)
    whitening = whitening_matrix(covariance)
    maps = whiten(estimate_coil_maps(kspace, noise_covariance=covariance)[0], whitening)
    mask = (kspace != 0).any(0)
    root = np.sqrt(spectrum / 2)

    def colour(z):
        return to_image(root * to_kspace(z))

    def normal(v):
        z = v.reshape(SHAPE)
        coils = to_image(mask * to_kspace(maps * colour(z)))
        return (z + colour((maps.conj() * coils).sum(0))).ravel()

    b = colour((maps.conj() * to_image(whiten(kspace, whitening))).sum(0)).ravel()
    size = np.prod(SHAPE)
    z, failed = cg(LinearOperator((size, size), normal, dtype=complex), b, rtol=1e-5)
    assert not failed
    return colour(z.reshape(SHAPE))


def test_the_reference_is_the_image_up_to_noise(problem):
    image, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)
    assert psnr(evaluation.reference, image) > 35
    assert np.trace(evaluation.noise).real / 4 == pytest.approx(NOISE, rel=0.3)


def test_undersampling_counts_the_lines_received(problem):
    _, _, kspace = problem
    partial = kspace.copy()
    partial[:, :10] = 0
    kept, acceleration = Evaluation(partial, calibration=16).undersampled("equispaced", 4)
    lines = np.flatnonzero(np.any(kept != 0, axis=(0, 2)))
    assert set(range(24, 40)) <= set(lines)
    assert acceleration == pytest.approx(54 / len(lines))


def test_a_true_prior_scores_as_calibrated_and_best(problem):
    _, spectrum, kspace = problem
    ran = []
    evaluation = Evaluation(kspace, index=3, calibration=16)
    scores, comparison = evaluation.run("equispaced", 4, sampler(spectrum), before=ran.append)
    assert tuple(ran) == METHODS == tuple(score.method for score in scores)
    zero, sense, wavelet, posterior = scores
    assert zero.psnr < sense.psnr
    # Eight balanced samples: independent ones' mean would fall 10 log10(1 + 1/8) = 0.5 dB short.
    undersampled, _ = evaluation.undersampled("equispaced", 4)
    best = psnr(posterior_mean(undersampled, spectrum), evaluation.reference)
    assert posterior.psnr == pytest.approx(best, abs=0.1)
    # SENSE takes the spectrum from the data, rings of it.
    assert sense.psnr < posterior.psnr
    assert wavelet.psnr < posterior.psnr
    assert 0.8 < posterior.sd_to_error < 1.25
    assert 0.8 < posterior.sd_to_error_magnitude < 1.25
    assert 0.4 < posterior.coverage_50 < 0.6
    assert 0 < posterior.crps < 0.1
    assert wavelet.note.startswith("lambda 0.0")
    assert wavelet.sd_to_error is None
    assert posterior.slice == 3
    assert comparison.images["CG-SENSE"].shape == comparison.std.shape == SHAPE
    assert psnr(comparison.images["CG-SENSE"], comparison.reference) == sense.psnr


def test_noise_that_mean_and_reference_share_counts_as_error(problem):
    """All lines, no prior: the mean is the reference, and its error all the reference's noise."""
    _, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)

    def mvue_and_its_sd(kspace):
        result = reconstruct(kspace, sampler="none")
        mean = mvue(kspace, result.maps[0, 0])[None]
        sd = np.sqrt(reference_noise_variance(evaluation.noise, result.maps[0, 0]))[None]
        samples = mean[:, None] + np.array([1, -1])[:, None, None] * sd[:, None]
        info = replace(result.info, effective_samples=np.inf)
        return replace(result, mean=mean, std=sd, samples=samples, info=info)

    scores, _ = evaluation.run("equispaced", 1, mvue_and_its_sd)
    assert scores[-1].psnr > 60
    assert scores[-1].sd_to_error == pytest.approx(1, abs=0.05)


def test_without_samples_there_is_no_uncertainty(problem):
    _, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)
    scores, _ = evaluation.run("equispaced", 4, lambda k: reconstruct(k, sampler="none"))
    assert scores[-1].sd_to_error is None
    assert scores[-1].note == "no samples"
    assert scores[-1].psnr == pytest.approx(scores[1].psnr, abs=1e-3)
    rows = list(averaged([*scores, *scores]))
    assert [row["method"] for row in rows] == list(METHODS)
    assert rows[0]["psnr"] == pytest.approx(scores[0].psnr)
    assert rows[-1]["sd_to_error"] is None
