from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core import Info, reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.classical import mvue, root_sum_of_squares
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import (
    covariance_from_edges,
    noise_sigma,
    whiten,
    whitening_matrix,
)
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.score.metrics import head_mask, psnr, reference_noise_variance
from scoremri_core.studies.evaluate.comparison import METHODS, Evaluation

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


@pytest.mark.parametrize("empty", [0, 10])
def test_both_axes_are_undersampled_as_much_as_asked(problem, empty):
    _, _, kspace = problem
    partial = kspace.copy()
    partial[:, :empty] = 0
    evaluation = Evaluation(partial, calibration=16)
    kept, acceleration = evaluation.undersampled("poisson-2d", 5)
    received, mask = (np.any(k != 0, axis=0) for k in (partial, kept))
    assert acceleration == pytest.approx(5, rel=0.01)
    assert received.sum() / mask.sum() == pytest.approx(acceleration)
    assert mask[24:40, 20:36].all()
    mask[24:40, 20:36] = False
    outside = mask[empty:]
    assert outside.any(axis=0).mean() > 0.8
    assert outside.any(axis=1).mean() > 0.8
    assert outside.all(axis=1).sum() == outside.all(axis=0).sum() == 0
    np.testing.assert_array_equal(kept[:, mask], partial[:, mask])
    with pytest.raises(InputError, match="acceleration 20"):
        evaluation.undersampled("poisson-2d", 20)


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
    assert 0.8 < posterior.complex_sd_to_error < 1.25
    assert 0.4 < posterior.coverage_50 < 0.6
    assert 0.86 < posterior.coverage_90 < 0.94
    estimate = noise_sigma(covariance_from_edges(undersampled))
    assert posterior.sigma_n == pytest.approx(estimate / 500)
    assert wavelet.sigma_n is None
    assert 0 < posterior.crps < 0.1
    assert wavelet.note.startswith("lambda 0.0")
    assert wavelet.sd_to_error is None
    assert posterior.slice == 3
    assert comparison.images["CG-SENSE"].shape == comparison.std.shape == SHAPE
    assert psnr(comparison.images["CG-SENSE"], comparison.reference) == sense.psnr
    # sd and error are of the same thing
    shown = np.sqrt(np.mean(comparison.std**2) / np.mean(comparison.error**2))
    assert 0.9 * shown < posterior.sd_to_error < 1.5 * shown


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
    assert scores[-1].complex_sd_to_error == pytest.approx(1, abs=0.05)


def test_magnitudes_share_noise_with_a_root_sum_of_squares_too(problem):
    """The same, of an object that folds."""
    _, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)
    variance = reference_noise_variance(evaluation.noise, evaluation.coil_directions)

    def root_and_its_sd(kspace):
        result = reconstruct(kspace, sampler="none", maps=2)
        mean = root_sum_of_squares(kspace)[None]
        sd = np.sqrt(variance / 2)[None]
        samples = (mean[:, None] + np.array([1, -1])[:, None, None] * sd[:, None]).astype(complex)
        info = replace(result.info, effective_samples=np.inf)
        maps = np.ones_like(result.maps)
        return replace(
            result, mean=samples.mean(1), std=np.sqrt(2) * sd, samples=samples, maps=maps, info=info
        )

    scores, _ = evaluation.run("equispaced", 1, root_and_its_sd)
    assert scores[-1].reference == "root sum of squares"
    assert scores[-1].sd_to_error == pytest.approx(1, abs=0.05)


def test_without_samples_there_is_no_uncertainty(problem):
    _, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)
    scores, _ = evaluation.run("equispaced", 4, lambda k: reconstruct(k, sampler="none"))
    assert scores[-1].sd_to_error is None
    assert scores[-1].note == "no samples"
    assert scores[-1].psnr == pytest.approx(scores[1].psnr, abs=1e-3)
    assert scores[-1].coverage_90 is None


def test_info_of_a_slice_is_scored_in_units_of_its_scale(problem):
    _, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)

    def given_noise(kspace):
        result = reconstruct(kspace, sampler="none", scale=500.0)
        known = {**vars(result.info), "misfit": (0.3,), "sigma_thermal": (0.3,), "scale": (500.0,)}
        return replace(result, info=Info(**known))

    posterior = evaluation.run("equispaced", 4, given_noise)[0][-1]
    assert posterior.misfit == 0.3
    assert posterior.sigma_thermal == pytest.approx(0.3 / 500)


def test_where_the_object_folds_magnitudes_are_compared_with_the_root_sum_of_squares(problem):
    """Samples of known spread about the true magnitude, and a reference with noise of its own."""
    image, _, kspace = problem
    evaluation = Evaluation(kspace, calibration=16)
    rng = np.random.default_rng(8)
    spread = np.sqrt(NOISE)
    middle = abs(image) + spread * rng.normal(size=SHAPE)
    samples = middle + spread * rng.normal(size=(1, 12, *SHAPE))

    def known(kspace):
        result = reconstruct(kspace, sampler="none", maps=2)
        maps = np.ones((1, 2, *kspace.shape), np.complex64)
        info = replace(result.info, effective_samples=12)
        sd = np.sqrt(2) * samples.std(1, ddof=1)
        # no magnitude has a phase
        turned = samples * np.exp(1j * rng.uniform(0, 6, SHAPE))
        return replace(result, mean=turned.mean(1), std=sd, samples=turned, maps=maps, info=info)

    scores, comparison = evaluation.run("poisson", 4, known)
    posterior = scores[-1]
    assert {score.reference for score in scores} == {"root sum of squares"}
    # less the power of the noise, which is a bias
    power = root_sum_of_squares(kspace) ** 2 - np.trace(evaluation.noise).real
    np.testing.assert_allclose(comparison.reference**2, np.maximum(power, 0), 1e-3)
    assert power.mean() == pytest.approx(np.mean(abs(image) ** 2), rel=0.01)
    assert posterior.psnr == pytest.approx(psnr(samples[0].mean(0), comparison.reference), abs=1e-3)
    assert posterior.complex_sd_to_error is None
    assert posterior.sd_to_error == pytest.approx(1, abs=0.05)
    assert posterior.coverage_90 == pytest.approx(0.9, abs=0.02)
    head = head_mask(comparison.reference)
    assert np.sqrt(np.mean(comparison.std[head] ** 2)) == pytest.approx(spread, rel=0.03)


def test_columns_are_lines_of_the_scan_turned(problem):
    """Undersampling the readout of a scan is undersampling the lines of the turned one."""
    kspace = problem[2]
    lines = Evaluation(kspace, 0, "20%", "phase", True)
    turned = Evaluation(kspace.swapaxes(1, 2).copy(), 0, "20%", "readout", True)
    one, ratio = lines.undersampled("uniform", 2.5, 1)
    two, same = turned.undersampled("uniform", 2.5, 1)
    np.testing.assert_array_equal(one, two.swapaxes(1, 2))
    assert ratio == same == pytest.approx(2.5, rel=0.05)
    np.testing.assert_allclose(
        abs(lines.reference), abs(turned.reference.T), atol=0.02 * abs(lines.reference).max()
    )
