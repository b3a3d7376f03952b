"""The default sampler: annealed exact draws."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scoremri_core.mri.arithmetic import real_pairs, scale_complex, y_contiguous
from scoremri_core.mri.fourier import fft
from scoremri_core.mri.sense import SenseOperator, chunks
from scoremri_core.priors.base import (
    Denoiser,
    StationaryPrior,
    denoise_with_error,
    error_spectrum,
)
from scoremri_core.samplers.annealing import OnLevel, no_callback
from scoremri_core.samplers.conjugate_gradients import conjugate_gradients
from scoremri_core.samplers.noise_level import NoiseLevel
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.samplers.schedule import schedule

logger = logging.getLogger(__name__)

START_TOLERANCE = 0.3  # in sd, a third of the first noise level
RESTARTS = 3  # if lines are inconsistent: samples would keep their errors of the start
MEAN_SHARE = 0.05  # of the mean error variance in each pixel's


@dataclass(frozen=True)
class PosteriorOptions:
    """Options of the default sampler.

    Attributes
    ----------
    steps : int
        Noise levels; one denoiser evaluation each, per sample or group of samples (see `balanced`).
    sigma_max, sigma_min : float or None
        First and last noise level, in units of the prior. None: 12 and 0.4 times the sd that the
        measurements leave, frame by frame, within 0.1 to 2 and 0.01 to 0.015; 2 and 0.01 for a
        prior without `image_spectrum`.
    variance_scale : float or None
        Factor on the prior's error variance; None takes the prior's.
    inflation : float or None
        Further factor on it where prior and measurements are weighted, but not where samples are
        drawn, as in ensemble Kalman filters (Anderson and Anderson 1999); None takes the prior's.
    tolerance : float
        Error of the linear solver, in sd of the distribution drawn.
    max_iterations : int
        Of the linear solver.
    balanced : bool
        Let the random numbers of every eight samples sum to zero. The distribution of each sample
        is unchanged, but their mean is as near the posterior mean as that of many more (0.5 dB for
        eight). Four samples share the noise levels above 2.5 times the sd that the measurements
        leave, two the levels down to that sd (see `schedule`). False draws independent samples.
    adapt_noise : bool
        Raise the noise of the likelihood to the residual of the samples, at each spatial frequency
        and in each line.
    """

    steps: int = 12
    sigma_max: float | None = None
    sigma_min: float | None = None
    variance_scale: float | None = None
    inflation: float | None = None
    tolerance: float = 0.01
    max_iterations: int = 100
    balanced: bool = True
    adapt_noise: bool = True

    def factors(self, prior: Denoiser | None) -> tuple[float, float]:
        """Return variance scale and inflation: those given, else the prior's, else 1.

        Parameters
        ----------
        prior : Denoiser or None

        Returns
        -------
        variance_scale : float
        inflation : float
        """

        def factor(name: str) -> float:
            given: float | None = getattr(self, name)
            return float(getattr(prior, name, 1.0)) if given is None else given

        return factor("variance_scale"), factor("inflation")


def sample_posterior(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: PosteriorOptions,
    on_level: OnLevel = no_callback,
) -> tuple[Tensor, int]:
    """Draw samples of p(x | y) by annealed exact draws, from a linear estimate plus noise.

    At each noise level sigma the prior's Gaussian approximation N(D(x, sigma), C) of p(x0 | x) is
    multiplied by the likelihood, and x0 is drawn exactly by perturb-and-solve [1]_:

        (I + C^(1/2)^H A^H W A C^(1/2)) z = C^(1/2)^H A^H W (y + W^(-1/2) e1 - A D) + e2 / f,
        x0 = D + C^(1/2) z

    The next x is x0 + sigma_next e (docs/methods.md, Eq. (8), (9), (10)). W is 1 / s^2, or less at
    spatial frequencies and in lines with a larger residual (`NoiseLevel`). C is f^2 times the error
    covariance of the denoiser (see `regularize_variance`). f > 1 (`inflation` is f^2) weights the
    measurements up, since the errors of a network are more correlated than C assumes; x0 has the
    variance under that gain (the Joseph form of the update). With f = 1 and an exact denoiser of a
    Gaussian prior the last x0 is an exact posterior sample.

    Parameters
    ----------
    operator : SenseOperator
        A, of all frames.
    data : complex64 tensor, (frame, coil, y, x)
        y, zero where not sampled, in units of the prior.
    sigma_n : float tensor, (frame,)
        s, least sd of each real component of the noise in `data`.
    prior : Denoiser
        Called with images (batch, y, x).
    noise : SampleNoise
        Random streams of the samples.
    options : PosteriorOptions
    on_level : callable, optional
        Called after each noise level with its number, the number of levels, and x0.

    Returns
    -------
    samples : complex64 tensor, (frame, sample, set, y, x)
    evaluations : int
        Denoiser evaluations per sample.

    Raises
    ------
    InputError
        Noise levels that increase or are not positive.

    References
    ----------
    .. [1] Papandreou G, Yuille AL. Gaussian sampling by local perturbations. NeurIPS (2010).
    """
    scale, inflation = options.factors(prior)
    _, sets, coils, ny, nx = operator.maps.shape
    reduced = operator.reduced(data)[:, None]
    rows = max(map(len, operator.rows))

    def draw(x0: Tensor, noise_variance: Tensor, sigma: Tensor, noise: SampleNoise) -> Tensor:
        """Draw the next x0, in chunks that bound the memory."""
        normal = partial(noise.complex_normal, balanced=options.balanced)
        # no noise where nothing is measured; the numbers do not depend on the number of frames if
        # all have the same number of rows
        e0, e1, e2 = normal(sets, ny, nx), normal(coils, nx, rows), normal(sets, ny, nx)
        parts = []
        for chunk in chunks(x0):
            x, e = x0[:, chunk], e0[:, chunk]
            denoised, variance, spectrum = denoise_with_error(
                prior,
                x.reshape(-1, ny, nx),
                e.expand(x.shape).reshape(-1, ny, nx),
                sigma.repeat_interleave(x.shape[1] * sets),
            )
            # the image is zero where no coil is sensitive
            denoised = torch.where(operator.support, y_contiguous(denoised.view(x.shape)), 0)
            variance = regularize_variance(y_contiguous(variance.view(x.shape)), operator.support)
            spectrum = (
                _spectra(prior, sigma, (ny, nx)) if spectrum is None else spectrum.view(x.shape)
            )
            root = CovarianceRoot(inflation * scale * variance, spectrum)
            weighted = operator.weighted(1 / noise_variance[:, chunk])
            innovation = weighted.adjoint_residual(reduced, denoised, e1[:, chunk])
            e = y_contiguous(e2[:, chunk] / inflation**0.5)
            correction = _correction(weighted, root, innovation, e, options.tolerance, options)
            parts.append(denoised + correction)
        return torch.cat(parts, 1)

    level = NoiseLevel(operator, sigma_n, reduced)

    def start() -> tuple[Tensor, Tensor]:
        weighted = operator.weighted(1 / level.variance)
        mean, sd = _start(weighted, data, level.variance, prior, options)
        if options.adapt_noise:
            level.update(operator.residual_power(reduced, mean))
        return mean, sd

    x0, uncertainty = start()
    # the start of frames without inconsistent lines stays the same
    if bool((level.excess > 1).any()):
        for _ in range(RESTARTS):
            x0, uncertainty = start()
    logger.debug("sd of the linear estimate: %s", uncertainty)
    x0 = x0.expand(-1, noise.samples, -1, -1, -1)
    for i, (sigma, size) in enumerate(schedule(uncertainty, options), start=1):
        # one draw per group of samples
        shared, group_of = noise.grouped(size)
        first = [group_of.index(i) for i in range(shared.samples)]
        variance = level.variance.expand(-1, noise.samples, -1, -1, -1)
        new = draw(x0[:, first], variance[:, first], sigma, shared)
        if options.adapt_noise:
            level.update(operator.residual_power(reduced, new)[:, group_of])
        x0 = new[:, group_of]
        on_level(i, options.steps, x0)
    return x0, options.steps


def _start(
    operator: SenseOperator,
    data: Tensor,
    noise_variance: Tensor,
    prior: Denoiser,
    options: PosteriorOptions,
) -> tuple[Tensor, Tensor]:
    """Estimate the image linearly, and the sd that the measurements leave.

    Models images as a stationary Gaussian with the prior's power spectrum, or as white with sd 1
    for a prior without one.

    Returns
    -------
    mean : complex64 tensor, (frame, 1, set, y, x)
    sd : float tensor, (frame,)
        Root mean square of each real component; infinite for a prior without a spectrum.
    """
    ny, nx = data.shape[-2:]
    spectrum = prior.image_spectrum((ny, nx)) if isinstance(prior, StationaryPrior) else None
    variance = operator.support.to(data.real.dtype)
    if spectrum is not None:
        power = spectrum.mean()
        variance, spectrum = power * variance, (spectrum / power).view(1, 1, 1, *spectrum.shape)
    root = CovarianceRoot(variance, spectrum)
    # the mean, and one draw whose distance estimates the sd
    noise = SampleNoise(0, 1, data.device)
    e1 = noise_variance.sqrt() * noise.complex_normal(data.shape[1], ny, nx)
    e2 = noise.complex_normal(variance.shape[2], ny, nx)
    reduced = operator.reduced(data)[:, None]
    zero = torch.zeros_like(variance).expand(-1, 2, -1, -1, -1).to(data.dtype)
    innovation = operator.adjoint_residual(torch.cat((reduced, reduced + e1), 1), zero)
    e2 = torch.cat((torch.zeros_like(e2), e2), 1)
    mean, draw = _correction(operator, root, innovation, e2, START_TOLERANCE, options).split(1, 1)
    if spectrum is None:
        return mean, torch.full((len(data),), torch.inf, device=data.device)
    axes = (1, 2, 3, 4)
    square = (draw - mean).abs().square().sum(axes) / 2
    return mean, (square / operator.support.sum(axes).clamp(min=1)).sqrt()


def regularize_variance(variance: Tensor, support: Tensor) -> Tensor:
    """Mix the error variance of each pixel with its mean over the support; zero elsewhere.

    A network predicts a variance near zero where its training images were dark or flat. Errors of
    the scan model (coil maps, motion, a filter) alias there too; a variance of zero would keep the
    measurements from correcting them. See docs/methods.md, Eq. (7).

    Parameters
    ----------
    variance : float tensor, (frame, sample, set, y, x)
        Of each real component.
    support : bool tensor, (frame, 1, set, y, x)

    Returns
    -------
    float tensor, (frame, sample, set, y, x)
    """
    variance = torch.where(support, variance, 0)
    # double precision after short sums, see `conjugate_gradients`
    total = variance.sum(-1, keepdim=True).sum((2, 3, 4), keepdim=True, dtype=torch.float64)
    mean = (total / support.sum((2, 3, 4), keepdim=True).clamp(min=1)).to(variance.dtype)
    return torch.where(support, torch.lerp(variance, mean, MEAN_SHARE), 0)


def _spectra(prior: Denoiser, sigma: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """Return the relative error power in k-space, (frame, 1, 1, y, x), or None if white."""
    spectra = [error_spectrum(prior, float(level), shape) for level in sigma]
    known = [spectrum for spectrum in spectra if spectrum is not None]
    return torch.stack(known)[:, None, None] if known else None


def _correction(
    operator: SenseOperator,
    root: CovarianceRoot,
    innovation: Tensor,
    e: Tensor,
    tolerance: float,
    options: PosteriorOptions,
) -> Tensor:
    """Solve for C^(1/2) z of `sample_posterior`, with innovation A^H W (y + W^(-1/2) e1 - A D)."""
    z, iterations = conjugate_gradients(
        lambda z: root.adjoint(operator.normal(root(z))).add_(z),
        y_contiguous(root.adjoint(innovation) + e),
        root.preconditioner(operator),
        tolerance,
        options.max_iterations,
        # expected norm of z
        reference=(2 * innovation[0, 0].numel()) ** 0.5,
    )
    if iterations == options.max_iterations:
        logger.warning("the linear solver stopped after %d iterations", iterations)
    logger.debug("linear solver: %d iterations", iterations)
    return root(z)


class CovarianceRoot:
    """C^(1/2) of the covariance C = V^(1/2) F^H L F V^(1/2) of the denoiser's error.

    V is the variance in each pixel, L the relative power at each spatial frequency (mean 1).
    C^(1/2) = V^(1/2) F^H L^(1/2) maps white noise in k-space to the image; C^(1/2) = V^(1/2) maps
    white noise in the image if L is flat. See docs/methods.md, Eq. (6).

    Parameters
    ----------
    variance : float tensor, (frame, sample, set, y, x)
        V of each real component.
    spectrum : float tensor, or None
        Diagonal of L, centred, broadcast against V; None if flat.
    """

    def __init__(self, variance: Tensor, spectrum: Tensor | None) -> None:
        self.variance = variance
        self._deviation = variance.sqrt()
        self._scale = real_pairs(self._deviation)
        # the filter commutes with shifts of the image: its FFTs need not be centred
        shifted = None if spectrum is None else torch.fft.ifftshift(spectrum, dim=(-2, -1))
        self._weights = shifted
        self._gain = None if shifted is None else real_pairs(shifted.sqrt())

    def __call__(self, z: Tensor) -> Tensor:
        """Apply C^(1/2)."""
        if self._gain is not None:
            z = _to_image(scale_complex(z, self._gain))
        return scale_complex(z, self._scale)

    def adjoint(self, x: Tensor) -> Tensor:
        """Apply the adjoint of C^(1/2).

        Parameters
        ----------
        x : complex64 tensor, (frame, sample, set, y, x)

        Returns
        -------
        complex64 tensor, (frame, sample, set, y, x)
        """
        x = scale_complex(x, self._scale)
        return x if self._gain is None else scale_complex(_to_kspace(x), self._gain)

    def preconditioner(self, operator: SenseOperator) -> Callable[[Tensor], Tensor]:
        """Return an approximate inverse of I + C^(1/2)^H A^H W A C^(1/2).

        The diagonal in the image if L is flat; otherwise the diagonal in k-space, on both sides of
        a correction in the image for a V that is not constant.

        Parameters
        ----------
        operator : SenseOperator
            With the weights W of the samples.

        Returns
        -------
        callable
            Maps a residual (frame, sample, set, y, x) to one of the same shape.
        """
        pixels = 1 + self.variance * operator.diagonal
        if self._weights is None:
            inverse = real_pairs(1 / pixels)
            return lambda r: scale_complex(r, inverse)
        mean = self.variance.mean((-2, -1), keepdim=True)
        # bounded: the diagonal in k-space accounts for a small V
        correction = real_pairs(((1 + mean * operator.diagonal) / pixels).clamp(max=2))
        density = operator.kspace_diagonal(self._deviation)
        gain = real_pairs((1 + self._weights * density).rsqrt())

        def precondition(r: Tensor) -> Tensor:
            image = scale_complex(_to_image(scale_complex(r, gain)), correction)
            return scale_complex(_to_kspace(image), gain)

        return precondition


def _to_kspace(x: Tensor) -> Tensor:
    return fft(x, (-2, -1))


def _to_image(z: Tensor) -> Tensor:
    return fft(z, (-2, -1), inverse=True)
