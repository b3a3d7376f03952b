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

START_TOLERANCE = 0.3  # in sd; the first noise level is three of them
RESTARTS = 3  # where lines contradict each other: what these did to the start, samples keep
EVERYWHERE = 0.05  # share of the error variance that all pixels have alike


@dataclass(frozen=True)
class PosteriorOptions:
    """Options of the default sampler.

    Attributes
    ----------
    steps : noise levels, each one denoiser evaluation of a sample, or of several (see `balanced`).
    sigma_max, sigma_min : first and last noise level, in units of the prior.  Where the prior knows
        the power spectrum of its images, None takes 12 and 0.4 times the sd that the measurements
        leave open, frame by frame, within 0.1 to 2 and 0.01 to 0.015; else 2 and 0.01.
    variance_scale : factor on the prior's error variance; None takes the prior's own.
    inflation : further factor on it where prior and measurements are weighed, as in ensemble
        Kalman filters (Anderson and Anderson 1999), but not where samples are drawn; None takes
        the prior's own.
    tolerance : error of a draw that the linear solver leaves, in sd of the distribution drawn.
    max_iterations : of the linear solver.
    balanced : let the random numbers of every eight samples sum to zero.  Each sample is a draw of
        the same distribution as without, but their mean comes as near the posterior mean as that
        of many more (0.5 dB for eight).  The first noise levels, above 2.5 times the sd that the
        measurements leave open, are then drawn for four samples at once, and the next, down to
        that sd, for two; the levels after these forget which (see `schedule`).  False draws
        independent samples.
    adapt_noise : let the noise of the likelihood rise, at each spatial frequency and in each line,
        to what the samples leave of the measurements.
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
        """Variance scale and inflation: those given, else the prior's own, else 1."""

        def of(name: str) -> float:
            given: float | None = getattr(self, name)
            return float(getattr(prior, name, 1.0)) if given is None else given

        return of("variance_scale"), of("inflation")


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

    At each noise level sigma the prior's Gaussian approximation N(D(x, sigma), C) of
    p(x0 | x) is multiplied by the likelihood and an x0 is drawn exactly, by perturb-and-solve
    (Papandreou and Yuille 2010):

        (I + C^(1/2)^H A^H W A C^(1/2)) z = C^(1/2)^H A^H W (y + W^(-1/2) e1 - A D) + e2 / f,
        x0 = D + C^(1/2) z

    after which the next x is x0 + sigma_next e.  W is 1 / s^2, or less at spatial frequencies and
    in lines where the samples leave more of y than that (`NoiseLevel`).  C is f^2 times the
    covariance that the error is thought to have, see `spread_out`: f > 1 (`inflation` is f^2)
    trusts the measurements more, since the errors of a network are not as independent as C takes
    them, and x0 varies as it does under that gain (the Joseph form of the update).  With f = 1 and
    an exact denoiser of a Gaussian prior the last x0 is a draw of the exact posterior.

    Parameters
    ----------
    operator : A, for all frames.
    data : y, (frame, coil, y, x), zero where not measured, in units of the prior.
    sigma_n : s, (frame,), least sd of each real component of the noise in `data`.
    prior : the denoiser; it sees images as (batch, y, x).
    noise : the random streams of the samples.
    options : schedule and tolerance.
    on_level : told of each noise level that is done.

    Returns
    -------
    samples (frame, sample, set, y, x), and the number of denoiser evaluations per sample.

    Raises
    ------
    InputError : noise levels that do not fall, or are not positive.
    """
    scale, inflation = options.factors(prior)
    _, sets, coils, ny, nx = operator.maps.shape
    reduced = operator.reduced(data)[:, None]
    rows = max(map(len, operator.rows))

    def drawn(before: Tensor, variance_of_noise: Tensor, sigma: Tensor, own: SampleNoise) -> Tensor:
        """One x0 for each of the last ones; what it takes is given back before the next level."""
        normal = partial(own.complex_normal, balanced=options.balanced)
        # what was not measured needs no noise; nor do the numbers depend on how many other frames
        # there are, where all measure as many rows
        e0, e1, e2 = normal(sets, ny, nx), normal(coils, nx, rows), normal(sets, ny, nx)
        parts = []
        for some in chunks(before):
            last, e = before[:, some], e0[:, some]
            denoised, variance, found = denoise_with_error(
                prior,
                last.reshape(-1, ny, nx),
                e.expand(last.shape).reshape(-1, ny, nx),
                sigma.repeat_interleave(last.shape[1] * sets),
            )
            # where no coil sees anything the image is zero by definition
            denoised = torch.where(operator.support, y_contiguous(denoised.view(last.shape)), 0)
            variance = spread_out(y_contiguous(variance.view(last.shape)), operator.support)
            spectrum = _spectra(prior, sigma, (ny, nx)) if found is None else found.view(last.shape)
            root = ErrorRoot(inflation * scale * variance, spectrum)
            weighted = operator.weighted(1 / variance_of_noise[:, some])
            innovation = weighted.adjoint_residual(reduced, denoised, e1[:, some])
            e = y_contiguous(e2[:, some] / inflation**0.5)
            correction = _correction(weighted, root, innovation, e, options.tolerance, options)
            parts.append(denoised + correction)
        return torch.cat(parts, 1)

    level = NoiseLevel(operator, sigma_n, reduced)

    def start() -> tuple[Tensor, Tensor]:
        weighted = operator.weighted(1 / level.variance)
        found = _start(weighted, data, level.variance, prior, options)
        if options.adapt_noise:
            level.follow(operator.residual_power(reduced, found[0]))
        return found

    x0, uncertainty = start()
    # of frames without such lines the start stays the same
    if bool((level.excess > 1).any()):
        for _ in range(RESTARTS):
            x0, uncertainty = start()
    logger.debug("start %s", uncertainty)
    x0 = x0.expand(-1, noise.samples, -1, -1, -1)
    for i, (sigma, family) in enumerate(schedule(uncertainty, options), start=1):
        # one of each family is drawn for all of it
        random, whose = noise.of_families(family)
        first = [whose.index(i) for i in range(random.samples)]
        variance = level.variance.expand(-1, noise.samples, -1, -1, -1)
        new = drawn(x0[:, first], variance[:, first], sigma, random)
        if options.adapt_noise:
            level.follow(operator.residual_power(reduced, new)[:, whose])
        x0 = new[:, whose]
        on_level(i, options.steps, x0)
    return x0, options.steps


def _start(
    operator: SenseOperator,
    data: Tensor,
    noise_variance: Tensor,
    prior: Denoiser,
    options: PosteriorOptions,
) -> tuple[Tensor, Tensor]:
    """What the measurements say, and the sd of what they leave open.

    The prior's images are taken as a stationary Gaussian with their power spectrum, as white with
    sd 1 where the prior does not know it.

    Returns
    -------
    The posterior mean under that Gaussian, (frame, 1, set, y, x), and the root-mean-square sd of
    each real component, (frame,); infinite where the spectrum is not known.
    """
    ny, nx = data.shape[-2:]
    spectrum = prior.image_spectrum((ny, nx)) if isinstance(prior, StationaryPrior) else None
    variance = operator.support.to(data.real.dtype)
    if spectrum is not None:
        power = spectrum.mean()
        variance, spectrum = power * variance, (spectrum / power).view(1, 1, 1, *spectrum.shape)
    root = ErrorRoot(variance, spectrum)
    # the mean, and one draw that tells how far from it the image may be
    noise = SampleNoise(0, 1, data.device)
    e1 = noise_variance.sqrt() * noise.complex_normal(data.shape[1], ny, nx)
    e2 = noise.complex_normal(variance.shape[2], ny, nx)
    reduced = operator.reduced(data)[:, None]
    zero = torch.zeros_like(variance).expand(-1, 2, -1, -1, -1).to(data.dtype)
    seen = operator.adjoint_residual(torch.cat((reduced, reduced + e1), 1), zero)
    e2 = torch.cat((torch.zeros_like(e2), e2), 1)
    mean, draw = _correction(operator, root, seen, e2, START_TOLERANCE, options).split(1, 1)
    if spectrum is None:
        return mean, torch.full((len(data),), torch.inf, device=data.device)
    axes = (1, 2, 3, 4)
    square = (draw - mean).abs().square().sum(axes) / 2
    return mean, (square / operator.support.sum(axes).clamp(min=1)).sqrt()


def spread_out(variance: Tensor, support: Tensor) -> Tensor:
    """Give every pixel of the support a share of the mean variance; zero elsewhere.

    A network is surest where its training images were dark or flat.  What the model of the scan
    gets wrong (coil maps, motion, a filter) folds errors there too, which the measurements
    could correct if they were let: a variance of nearly zero would not let them.

    Parameters
    ----------
    variance : of each real component, (frame, sample, set, y, x).
    support : bool, (frame, 1, set, y, x).
    """
    variance = torch.where(support, variance, 0)
    # in double precision after short sums, see `conjugate_gradients`
    total = variance.sum(-1, keepdim=True).sum((2, 3, 4), keepdim=True, dtype=torch.float64)
    mean = (total / support.sum((2, 3, 4), keepdim=True).clamp(min=1)).to(variance.dtype)
    return torch.where(support, torch.lerp(variance, mean, EVERYWHERE), 0)


def _spectra(prior: Denoiser, sigma: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """Relative power of the denoiser's error in k-space, (frame, 1, 1, y, x), or None if flat."""
    spectra = [error_spectrum(prior, float(level), shape) for level in sigma]
    known = [spectrum for spectrum in spectra if spectrum is not None]
    return torch.stack(known)[:, None, None] if known else None


def _correction(
    operator: SenseOperator,
    root: ErrorRoot,
    innovation: Tensor,
    e: Tensor,
    tolerance: float,
    options: PosteriorOptions,
) -> Tensor:
    """C^(1/2) z for the z of `sample_posterior`; innovation is A^H W (y + W^(-1/2) e1 - A D)."""
    z, iterations = conjugate_gradients(
        lambda z: root.adjoint(operator.normal(root(z))).add_(z),
        y_contiguous(root.adjoint(innovation) + e),
        root.preconditioner(operator),
        tolerance,
        options.max_iterations,
        # so large is the error of z = 0 if z is what it is thought to be
        reference=(2 * innovation[0, 0].numel()) ** 0.5,
    )
    if iterations == options.max_iterations:
        logger.warning("the linear solver stopped after %d iterations", iterations)
    logger.debug("solved in %d iterations", iterations)
    return root(z)


class ErrorRoot:
    """C^(1/2) for the covariance C = V^(1/2) F^H W F V^(1/2) of the denoiser's error.

    V is the variance in each pixel, W the relative power at each spatial frequency (mean 1): an
    error is neither the same everywhere nor white.  C^(1/2) = V^(1/2) F^H W^(1/2) takes white
    noise in k-space, V^(1/2) takes it in the image where W is flat.

    Parameters
    ----------
    variance : V of each real component, (frame, sample, set, y, x).
    spectrum : diagonal of W, centred, broadcast against V, or None where it is flat.
    """

    def __init__(self, variance: Tensor, spectrum: Tensor | None) -> None:
        self.variance = variance
        self._deviation = variance.sqrt()
        self._scale = real_pairs(self._deviation)
        # the filter commutes with shifts of the image, so its FFTs need no centring
        shifted = None if spectrum is None else torch.fft.ifftshift(spectrum, dim=(-2, -1))
        self._weights = shifted
        self._gain = None if shifted is None else real_pairs(shifted.sqrt())

    def __call__(self, z: Tensor) -> Tensor:
        """C^(1/2) z."""
        if self._gain is not None:
            z = _to_image(scale_complex(z, self._gain))
        return scale_complex(z, self._scale)

    def adjoint(self, x: Tensor) -> Tensor:
        """The adjoint of C^(1/2)."""
        x = scale_complex(x, self._scale)
        return x if self._gain is None else scale_complex(_to_kspace(x), self._gain)

    def preconditioner(self, operator: SenseOperator) -> Callable[[Tensor], Tensor]:
        """An approximate inverse of I + C^(1/2)^H A^H W A C^(1/2).

        Its diagonal in the image where W is flat.  Otherwise its diagonal in k-space, on both
        sides of what V's departures from its mean do to the diagonal in the image.
        """
        pixels = 1 + self.variance * operator.diagonal
        if self._weights is None:
            inverse = real_pairs(1 / pixels)
            return lambda r: scale_complex(r, inverse)
        mean = self.variance.mean((-2, -1), keepdim=True)
        # where V is small k-space is right about its being small, and nothing more to be done
        correction = real_pairs(((1 + mean * operator.diagonal) / pixels).clamp(max=2))
        density = operator.kspace_diagonal(self._deviation)
        gain = real_pairs((1 + self._weights * density).rsqrt())

        def inverted(r: Tensor) -> Tensor:
            image = scale_complex(_to_image(scale_complex(r, gain)), correction)
            return scale_complex(_to_kspace(image), gain)

        return inverted


def _to_kspace(x: Tensor) -> Tensor:
    return fft(x, (-2, -1))


def _to_image(z: Tensor) -> Tensor:
    return fft(z, (-2, -1), inverse=True)
