"""Agreement of samples with a known posterior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoremri_core.mri.sense import SenseOperator
from scoremri_core.score.metrics import crps_of_values
from scoremri_core.studies.validate.closed_form import ClosedForm, Posterior

LEVELS = (0.5, 0.9, 0.95)
BINS = 20  # of the rank histogram
REGIONS = 4  # blocks along each axis
REFERENCE_SAMPLES = 400  # of the Monte Carlo error to which that of the mean is compared


def scores(
    samples: Tensor, truths: Tensor, data: Tensor, closed: ClosedForm, shape: tuple[int, int]
) -> dict[str, float]:
    """Compare samples with an exact posterior, and truths with the samples.

    Parameters
    ----------
    samples : complex tensor, (truth, sample, pixel)
        Their number is one less than a multiple of 40.
    truths : complex tensor, (truth, pixel)
        Drawn from the prior.
    data : complex tensor, (truth, coil, y, x)
        Of the truths.
    closed : ClosedForm
    shape : tuple of int, (y, x)
        Of the images.

    Returns
    -------
    dict of str to float
        mean_error : root-mean-square error of the posterior mean less the Monte Carlo error, in
        units of the exact sd.

        mean_error_over_floor : that error plus the Monte Carlo error of 400 samples, over the
        latter.

        sd_ratio : sd over the exact sd, mean over pixels.

        covariance_error : |C' - C| / |C| (Frobenius) of the full covariance; the expectation for
        exact samples is subtracted from the square.

        pixel_50, pixel_90, pixel_95, region_... : fraction of the truth's pixels, or of means of
        4 x 4 blocks, in these central intervals of the samples.

        rank_chi2 : of the truth's rank among the samples along each eigenvector of the posterior
        covariance (independent for a Gaussian), 20 bins, per degree of freedom; 1 if calibrated
        (Talts et al., arXiv:1804.06788).

        crps : mean continuous ranked probability score of pixels, unbiased.

        residual_chi2 : |y - A x|^2 over its expectation; 1 for posterior samples.

        weight_error : root-mean-square error of a mixture's component weights.

    Raises
    ------
    ValueError
        The number of samples is not one less than a multiple of 40.
    """
    count = samples.shape[1]
    if (count + 1) % 40:
        raise ValueError(f"{count} samples: expected one less than a multiple of 40")
    samples = samples.to(torch.complex128)
    posterior = closed.given(data)
    apart = samples - posterior.mean()[:, None]
    variance = torch.view_as_real(samples).var(1).mean(-1)  # (truth, pixel)
    exact = posterior.sd().square()
    error = (apart.mean(1).abs().square() / 2 / exact).mean() - (variance / exact).mean() / count
    found = {
        "mean_error": math.sqrt(max(0.0, float(error))),
        "mean_error_over_floor": math.sqrt(max(0.0, 1 + REFERENCE_SAMPLES * float(error))),
        "sd_ratio": float((variance.mean(0) / exact.mean(0)).sqrt().mean()),
        "covariance_error": _covariance_error(apart, posterior),
    }
    pixels = _ranks(samples, truths)
    regions = _ranks(_region_means(samples, shape), _region_means(truths, shape))
    for name, ranks in (("pixel", pixels), ("region", regions)):
        for level in LEVELS:
            found[f"{name}_{100 * level:.0f}"] = _coverage(ranks, count, level)
    modes = torch.linalg.eigh(closed.covariances[0]).eigenvectors.conj()
    ranks = _ranks(samples @ modes, truths.to(modes.dtype) @ modes)
    found["rank_chi2"] = _chi2(ranks, count)
    found["crps"] = _crps(torch.view_as_real(samples), _components(truths))
    residual = data[:, None][..., closed.measured].flatten(2) - samples @ closed.forward.T
    found["residual_chi2"] = float(residual.abs().square().mean()) / (2 * closed.sigma_n**2)
    if len(closed.weights) > 1:
        weights = posterior.probabilities(samples).mean(1)
        found["weight_error"] = float((weights - posterior.weights)[:, 0].square().mean().sqrt())
    return found


def scores_against(
    samples: Tensor, truths: Tensor, data: Tensor, reference: Tensor, operator: SenseOperator
) -> dict[str, float]:
    """Compare samples with reference samples of the posterior, pixel by pixel.

    Parameters
    ----------
    samples : complex tensor, (truth, sample, pixel)
        Their number is one less than a multiple of 40.
    truths : complex tensor, (truth, pixel)
        Drawn from the prior.
    data : complex tensor, (truth, coil, y, x)
        Of the truths, with noise of sd 1 in units of `operator`.
    reference : complex tensor, (truth, sample, pixel)
        Independent draws of the posterior.
    operator : SenseOperator
        A, of one frame, over the sd of the noise.

    Returns
    -------
    dict of str to float
        mean_error, mean_error_over_floor, sd_ratio, pixel_50, pixel_90, pixel_95, crps,
        residual_chi2 : see `scores`, with mean and sd of the reference.

        mse_over_best : mean square error of the samples' mean over that of the reference, the
        minimum.
    """
    count = samples.shape[1]
    samples, reference = samples.to(torch.complex128), reference.to(torch.complex128)
    truths = truths.to(torch.complex128)
    variance = torch.view_as_real(samples).var(1).mean(-1)
    exact = torch.view_as_real(reference).var(1).mean(-1).clamp(min=1e-12)
    apart = (samples.mean(1) - reference.mean(1)).abs().square() / 2
    floor = variance / count + exact / reference.shape[1]
    error = float(((apart - floor) / exact).mean())
    found = {
        "mean_error": math.sqrt(max(0.0, error)),
        "mean_error_over_floor": math.sqrt(max(0.0, 1 + REFERENCE_SAMPLES * error)),
        "sd_ratio": float((variance.mean(0) / exact.mean(0)).sqrt().mean()),
    }
    ranks = _ranks(samples, truths)
    for level in LEVELS:
        found[f"pixel_{100 * level:.0f}"] = _coverage(ranks, count, level)
    found["crps"] = _crps(torch.view_as_real(samples), _components(truths))
    ny, nx = operator.maps.shape[-2:]
    images = samples.to(torch.complex64).reshape(1, -1, 1, ny, nx)
    predicted = operator.forward(images)[0].view(len(samples), count, *data.shape[1:])
    measured = operator.mask[0, 0, 0].expand(data.shape[1:])
    residual = (data[:, None] - predicted)[..., measured]
    found["residual_chi2"] = float(residual.abs().square().mean()) / 2
    errors = [(x.mean(1) - truths).abs().square() for x in (samples, reference)]
    # subtract the Monte Carlo error, which depends on the number of samples
    best = errors[1].mean() - 2 * exact.mean() / reference.shape[1]
    found["mse_over_best"] = float((errors[0].mean() - 2 * variance.mean() / count) / best)
    return found


def _components(x: Tensor) -> Tensor:
    return torch.view_as_real(x.to(torch.complex128))


def _ranks(samples: Tensor, truths: Tensor) -> Tensor:
    """Count the samples below the truth in each real component, 0 to S."""
    return (_components(samples) < _components(truths)[:, None]).sum(1).flatten()


def _coverage(ranks: Tensor, count: int, level: float) -> float:
    outside = round((count + 1) * (1 - level) / 2)
    return float(((ranks >= outside) & (ranks <= count - outside)).double().mean())


def _chi2(ranks: Tensor, count: int) -> float:
    histogram = torch.bincount(ranks * BINS // (count + 1), minlength=BINS).double()
    expected = len(ranks) / BINS
    return float(((histogram - expected) ** 2 / expected).sum() / (BINS - 1))


def _region_means(x: Tensor, shape: tuple[int, int]) -> Tensor:
    ny, nx = (n // REGIONS for n in shape)
    image = x.view(*x.shape[:-1], *shape)[..., : ny * REGIONS, : nx * REGIONS]
    blocks = image.reshape(*x.shape[:-1], REGIONS, ny, REGIONS, nx)
    return blocks.mean((-3, -1)).flatten(-2)


def _crps(samples: Tensor, truths: Tensor) -> float:
    return crps_of_values(samples.transpose(0, 1).numpy(), truths.numpy())


def _covariance_error(apart: Tensor, posterior: Posterior) -> float:
    """Estimate the error, unbiased in its square: only pairs of samples enter |C'|^2."""
    apart = apart / 2**0.5
    if posterior.weights.shape[1] == 1:  # the covariance does not depend on the data
        apart = apart.reshape(1, -1, apart.shape[-1])
    squares = []
    for frame, d in enumerate(apart):
        covariance = posterior.covariance(frame)
        gram = (d @ d.mH).abs().square()
        pairs = (gram.sum() - gram.diagonal().sum()) / (len(d) * (len(d) - 1))
        cross = (d.conj() @ covariance * d).real.sum(1).mean()
        norm2 = covariance.abs().square().sum()
        squares.append(float((pairs - 2 * cross + norm2) / norm2))
    return math.sqrt(max(0.0, sum(squares) / len(squares)))
