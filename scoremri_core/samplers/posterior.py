"""The default sampler: annealed exact draws."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scoremri_core.conjugate_gradients import conjugate_gradients
from scoremri_core.fourier import fft
from scoremri_core.priors.base import Denoiser, denoise_with_variance, error_spectrum
from scoremri_core.samplers.annealing import geometric
from scoremri_core.samplers.noise import SampleNoise
from scoremri_core.sense import SenseOperator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PosteriorOptions:
    """Options of the default sampler.

    Attributes
    ----------
    steps : noise levels, each one denoiser evaluation.
    sigma_max, sigma_min : first and last noise level, in units of the prior; for the first, None
        takes the prior's own, or 2.
    variance_scale : factor on the prior's error variance; None takes the prior's own.
    tolerance, max_iterations : of the linear solves; loose ones bias the variance of the samples.
    """

    steps: int = 12
    sigma_max: float | None = None
    sigma_min: float = 0.01
    variance_scale: float | None = None
    tolerance: float = 3e-3
    max_iterations: int = 50


def sample_posterior(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: PosteriorOptions,
) -> tuple[Tensor, int]:
    """Draw samples of p(x | y) by annealed exact draws, from a SENSE image plus noise.

    At each noise level sigma the prior's Gaussian approximation N(D(x, sigma), C) of
    p(x0 | x) is multiplied by the likelihood and an x0 is drawn exactly, by perturb-and-solve
    (Papandreou and Yuille 2010):

        (I + C^(1/2)^H A^H A C^(1/2) / s^2) z = C^(1/2)^H A^H (y + s e1 - A D) / s^2 + e2,
        x0 = D + C^(1/2) z

    after which the next x is x0 + sigma_next e.  With an exact denoiser of a Gaussian prior the
    last x0 is a draw of the exact posterior.

    Parameters
    ----------
    operator : A, for all frames.
    data : y, (frame, coil, y, x), zero where not measured, in units of the prior.
    sigma_n : s, (frame,), sd of each real component of the noise in `data`.
    prior : the denoiser; it sees images as (batch, y, x).
    noise : the random streams of the samples.
    options : schedule and tolerance.

    Returns
    -------
    samples (frame, sample, set, y, x), and the number of denoiser evaluations per sample.
    """
    frames, sets, coils, ny, nx = operator.maps.shape
    weight = (1 / sigma_n**2).view(-1, 1, 1, 1, 1)
    spread = sigma_n.view(-1, 1, 1, 1, 1)
    scale, sigma_max = options.variance_scale, options.sigma_max
    if scale is None:
        scale = getattr(prior, "variance_scale", 1.0)
    if sigma_max is None:
        sigma_max = getattr(prior, "sigma_max", 2.0)
    images = (frames, len(noise.generators), sets, ny, nx)
    x0 = _start(operator, data, weight, options).expand(images)
    levels = geometric(sigma_max, options.sigma_min, options.steps)
    if options.steps == 1:
        levels = [sigma_max]  # the SENSE image is too far off for the last one
    for sigma in levels:
        e = noise.complex_normal(sets, ny, nx).expand(images)
        denoised, variance = denoise_with_variance(
            prior, x0.reshape(-1, ny, nx), e.reshape(-1, ny, nx), sigma
        )
        # where no coil sees anything the image is zero by definition
        denoised = torch.where(operator.support, denoised.view(images), 0)
        variance = torch.where(operator.support, scale * variance.view(images), 0)
        root = ErrorRoot(variance, error_spectrum(prior, sigma, (ny, nx)))

        measured = data[:, None] + spread * noise.complex_normal(coils, ny, nx)
        innovation = operator.adjoint(measured) - operator.normal(denoised)
        z, iterations = conjugate_gradients(
            partial(_normal, operator, root, weight),
            weight * root.adjoint(innovation) + noise.complex_normal(sets, ny, nx),
            root.preconditioner(operator, weight),
            options.tolerance,
            options.max_iterations,
        )
        logger.debug("sigma %.3g: solved in %d iterations", sigma, iterations)
        x0 = denoised + root(z)
    return x0, len(levels)


def _start(
    operator: SenseOperator, data: Tensor, weight: Tensor, options: PosteriorOptions
) -> Tensor:
    """What the measurements alone say, (frame, 1, set, y, x): SENSE with a white prior of sd 1.

    What they leave open is small beside the first noise level, which can so be a low one.
    """
    root = ErrorRoot(operator.support.to(data.real.dtype), None)
    z, _ = conjugate_gradients(
        partial(_normal, operator, root, weight),
        weight * root.adjoint(operator.adjoint(data[:, None])),
        root.preconditioner(operator, weight),
        options.tolerance,
        options.max_iterations,
    )
    return root(z)


def _normal(operator: SenseOperator, root: ErrorRoot, weight: Tensor, z: Tensor) -> Tensor:
    return z + weight * root.adjoint(operator.normal(root(z)))


class ErrorRoot:
    """C^(1/2) for the covariance C = V^(1/2) F^H W F V^(1/2) of the denoiser's error.

    V is the variance in each pixel, W the relative power at each spatial frequency (mean 1): an
    error is neither the same everywhere nor white.

    Parameters
    ----------
    variance : V of each real component, (frame, sample, set, y, x).
    spectrum : diagonal of W, centred (y, x), or None where it is flat.
    """

    def __init__(self, variance: Tensor, spectrum: Tensor | None) -> None:
        self.variance = variance
        self._deviation = variance.sqrt()
        # the filter commutes with shifts of the image, so its FFTs need no centring
        self._weights = None if spectrum is None else torch.fft.ifftshift(spectrum)
        self._gain = None if self._weights is None else self._weights.sqrt()

    def __call__(self, z: Tensor) -> Tensor:
        """C^(1/2) z."""
        if self._gain is not None:
            z = _filtered(self._gain, z)
        return self._deviation * z

    def adjoint(self, x: Tensor) -> Tensor:
        """The adjoint of C^(1/2)."""
        x = self._deviation * x
        return x if self._gain is None else _filtered(self._gain, x)

    def preconditioner(self, operator: SenseOperator, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """An approximate inverse of I + C^(1/2)^H A^H A C^(1/2) / s^2.

        Its diagonal in the image where W is flat.  Otherwise its diagonal in k-space for the mean
        of V, on both sides of what V's departures from the mean do to the diagonal in the image.
        """
        pixels = 1 + weight * self.variance * operator.diagonal
        if self._weights is None:
            return lambda r: r / pixels
        mean = self.variance.mean((-2, -1), keepdim=True)
        correction = (1 + weight * mean * operator.diagonal) / pixels
        gain = (1 + weight * mean * self._weights * operator.kspace_diagonal).rsqrt()
        return lambda r: _filtered(gain, correction * _filtered(gain, r))


def _filtered(gain: Tensor, x: Tensor) -> Tensor:
    return fft(gain * fft(x + 0, (-2, -1)), (-2, -1), inverse=True)
