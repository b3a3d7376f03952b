"""Annealed Hamiltonian Monte Carlo (Ramzi et al. 2020)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser
from scoremri_core.samplers.annealing import OnLevel, in_image_units, no_callback
from scoremri_core.samplers.conjugate_gradients import conjugate_gradients
from scoremri_core.samplers.hamiltonian import inner, leapfrog, path_integral
from scoremri_core.samplers.random_numbers import SampleNoise

logger = logging.getLogger(__name__)

TOLERANCE = 1e-2  # of the linear solve between temperatures
GAINS = (1.0, 0.6, 0.15)  # eigenvalues of A^H A at which the tempering is exact


@dataclass(frozen=True)
class HmcOptions:
    """Options of annealed Hamiltonian Monte Carlo.

    Attributes
    ----------
    steps : int
        Temperatures, from sigma_max to sigma_min by a constant factor.
    sigma_max, sigma_min : float, float or None
        First and last noise level, in units of the prior. The last x has the noise of sigma_min.
        None takes s / 4 within 0.003 (the least noise that networks are trained with) and 0.01; it
        adds 3 % to the sd of measured components.
    trajectories : int
        Proposals at each temperature.
    leapfrog : int
        Leapfrog steps of each proposal.
    step_size : float or None
        Leapfrog step at sigma_max over sigma_max; None takes 1.2 d^(-1/4) for d real unknowns,
        which a Gaussian accepts three times out of four. Scales as sigma, like all widths of the
        target (in the paper as sigma^1.5).
    tuning : int
        Temperatures above sigma_max, one proposal each, in which the step size is tuned.
    target_acceptance : float
        Acceptance to which the step size is adapted, sample by sample; 0 keeps the step size.
    denoise : bool
        Return E[x0 | x] of the last x, as the paper does, not x. See `sample_hmc` for its effect on
        the standard deviation.

    Raises
    ------
    InputError
        An option is out of range.
    """

    steps: int = 100
    sigma_max: float = 1.0
    sigma_min: float | None = None
    trajectories: int = 1
    leapfrog: int = 8
    step_size: float | None = None
    tuning: int = 20
    target_acceptance: float = 0.75
    denoise: bool = True

    def __post_init__(self) -> None:
        if not 0 < (self.sigma_max if self.sigma_min is None else self.sigma_min) <= self.sigma_max:
            raise InputError(
                f"sigma_min, sigma_max are {self.sigma_min}, {self.sigma_max}: expected "
                "0 < sigma_min <= sigma_max"
            )
        if min(self.trajectories, self.leapfrog) < 1 or self.tuning < 0:
            raise InputError("trajectories, leapfrog: expected at least 1; tuning: at least 0")
        if not 0 <= self.target_acceptance < 1:
            raise InputError(f"target_acceptance is {self.target_acceptance}: expected 0 up to 1")

    def temperatures(self, sigma_n: float) -> list[float]:
        """Return the noise levels, including those of the tuning.

        Parameters
        ----------
        sigma_n : float
            Sd of each real component of the noise of the data.

        Returns
        -------
        list of float
            Decreasing.
        """
        last = self.sigma_min
        if last is None:
            last = min(max(sigma_n / 4, 0.003), 0.01, self.sigma_max)
        factor = (last / self.sigma_max) ** (1 / max(1, self.steps - 1))
        # bounded: with few temperatures the tuning would start at a huge level
        tuning = [self.sigma_max * max(factor, 0.95) ** -i for i in range(self.tuning, 0, -1)]
        return tuning + [self.sigma_max * factor**i for i in range(self.steps)]


@dataclass(frozen=True)
class HmcRun:
    """Samples and diagnostics of a run.

    Attributes
    ----------
    samples : complex64 tensor, (frame, sample, set, y, x)
    evaluations : int
        Denoiser evaluations per sample, including tuning and path integrals.
    sigmas : float tensor, (temperature, frame)
        Noise levels.
    acceptance : float tensor, (temperature, frame, sample)
        Fraction of accepted proposals.
    step_sizes : float tensor, (temperature, frame, sample)
        Leapfrog step after each temperature.
    """

    samples: Tensor
    evaluations: int
    sigmas: Tensor
    acceptance: Tensor
    step_sizes: Tensor


def sample_hmc(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: HmcOptions,
    on_level: OnLevel = no_callback,
) -> tuple[Tensor, int]:
    """Draw samples of p(x | y) by annealed Hamiltonian Monte Carlo.

    At each temperature sigma the chain targets

        p_sigma(x) exp(-(y - A x)^H P (y - A x) / 2),  P ~ (s^2 + sigma^2 A A^H)^-1,

    (docs/methods.md, Eq. (25)), where p_sigma is the prior blurred by noise of sd sigma, with score
    (D(x, sigma) - x) / sigma^2. Proposals are leapfrog trajectories of unit mass. The
    Metropolis-Hastings ratio takes log p_sigma from the path integral of the score along the
    segment between the ends (`path_integral`) [1]_.

    Parameters
    ----------
    operator : SenseOperator
        A, of all frames.
    data : complex64 tensor, (frame, coil, y, x)
        y, zero where not sampled, in units of the prior.
    sigma_n : float tensor, (frame,)
        Sd s of each real component of the noise in `data`.
    prior : Denoiser
        Called with images (batch, y, x).
    noise : SampleNoise
        Random streams of the samples.
    options : HmcOptions
    on_level : callable, optional
        Called after each noise level with its number, the number of levels, and x.

    Returns
    -------
    samples : complex64 tensor, (frame, sample, set, y, x)
    evaluations : int
        Denoiser evaluations per sample.

    Notes
    -----
    For a single coil A A^H = 1 in every sample and P = 1 / (s^2 + sigma^2), as in the paper. With
    several coils there are directions with A A^H = g << 1. The paper's P weights the data there too
    low, by up to 1 / g, until sigma < s, when trajectories of length sigma are too short for the
    width of these directions: they stay too wide, with a mean too near the prior's (by one sd at
    g = 0.03, s = 0.02 and a prior variance of 0.1). P is therefore the polynomial in A A^H that is
    exact at the eigenvalues `GAINS`, at the cost of two more products with A^H A per step. It lies
    between 0 and 1.4 times the exact P, so that the step size stays stable.

    The last x has the noise of sigma_min. Along a direction that is not measured, with prior
    variance c, x has variance c + sigma_min^2 and the denoised sample c^2 / (c + sigma_min^2); that
    of the posterior, c, lies between them.

    The step size is adapted while the chain runs. Strictly this violates detailed balance, as do
    annealing and the score of a network, which need not be a gradient. Proposals that are not
    finite are rejected.

    Between temperatures the deviation of x from an estimate of the image is scaled with sigma (the
    paper keeps x). After a rejected proposal x would have more noise than the network expects, and
    the network would keep it as image.

    References
    ----------
    .. [1] Ramzi Z et al. Denoising score-matching for uncertainty quantification in inverse
           problems. NeurIPS Workshop (2020).
    """
    run = run_hmc(operator, data, sigma_n, prior, noise, options, on_level)
    return run.samples, run.evaluations


@torch.no_grad()
def run_hmc(
    operator: SenseOperator,
    data: Tensor,
    sigma_n: Tensor,
    prior: Denoiser,
    noise: SampleNoise,
    options: HmcOptions,
    on_level: OnLevel = no_callback,
) -> HmcRun:
    """Draw samples as `sample_hmc` does, and return the acceptance at each temperature.

    Parameters
    ----------
    operator : SenseOperator
        A, of all frames.
    data : complex64 tensor, (frame, coil, y, x)
        y, zero where not sampled, in units of the prior.
    sigma_n : float tensor, (frame,)
        Sd s of each real component of the noise in `data`.
    prior : Denoiser
        Called with images (batch, y, x).
    noise : SampleNoise
        Random streams of the samples.
    options : HmcOptions
    on_level : callable, optional
        Called after each noise level with its number, the number of levels, and x.

    Returns
    -------
    HmcRun
    """
    operator, data, sigma_n = in_image_units(operator, data, sigma_n)
    frames, sets, _, ny, nx = operator.maps.shape
    target = _Target(operator, operator.adjoint(data[:, None]), sigma_n, prior)
    # (temperature, frame)
    levels = torch.tensor([options.temperatures(float(s)) for s in sigma_n], device=data.device).T
    scale = options.step_size or 1.2 * (2 * sets * ny * nx) ** -0.25
    log_factor = torch.zeros(frames, noise.samples, device=data.device)
    x = target.adjoint + _spread(levels[0]) * noise.complex_normal(sets, ny, nx)
    acceptance, step_sizes = [], []
    score = torch.zeros_like(x)
    for i, sigma in enumerate(levels):
        if i:
            x = target.transport(x, score, sigma)
        target.sigma = sigma
        # the image is zero where no coil is sensitive: x is noise only
        x = torch.where(operator.support, x, _spread(sigma) * noise.complex_normal(sets, ny, nx))
        score, gradient = target(x)
        base_step = scale * sigma[:, None]
        accepted = torch.zeros_like(log_factor)
        proposals = options.trajectories if i >= options.tuning else 1
        for _ in range(proposals):
            momentum = torch.where(operator.support, noise.complex_normal(sets, ny, nx), 0)
            end, last, end_score, end_gradient = leapfrog(
                target,
                x,
                momentum,
                gradient,
                _spread(base_step * log_factor.exp()),
                options.leapfrog,
            )
            # the likelihood's gradient is linear: the ends suffice for its integral
            likelihood = (gradient - score) + (end_gradient - end_score)
            log_ratio = (
                path_integral(target.prior_score, x, end, score, end_score)
                + inner(end - x, likelihood) / 2
                + (inner(momentum, momentum) - inner(last, last)) / 2
            )
            # half the squared magnitude of a complex normal number is distributed as -log(uniform)
            accept = log_ratio > -noise.complex_normal().abs().square() / 2
            x = torch.where(_spread(accept), end, x)
            score = torch.where(_spread(accept), end_score, score)
            gradient = torch.where(_spread(accept), end_gradient, gradient)
            accepted += accept
            if options.target_acceptance:
                chance = log_ratio.clamp(max=0).exp().nan_to_num(0).float()
                log_factor = log_factor + chance - options.target_acceptance
        acceptance.append(accepted / proposals)
        step_sizes.append(base_step * log_factor.exp())
        on_level(i + 1, len(levels), x)
        logger.debug(
            "sigma %.4f: acceptance %.2f, step %.2e",
            float(sigma.mean()),
            float(acceptance[-1].mean()),
            float(step_sizes[-1].mean()),
        )
    if options.denoise:
        x = target.denoised(x)
    run = HmcRun(
        torch.where(operator.support, x, 0),
        target.evaluations,
        levels[options.tuning :],
        torch.stack(acceptance[options.tuning :]),
        torch.stack(step_sizes[options.tuning :]),
    )
    rates = run.acceptance.mean((1, 2))
    logger.info(
        "acceptance %.2f (%.2f to %.2f over %d temperatures), %d evaluations per sample",
        float(rates.mean()),
        float(rates.min()),
        float(rates.max()),
        options.steps,
        run.evaluations,
    )
    return run


class _Target:
    """Gradients of the tempered posterior at noise level `sigma`; counts evaluations."""

    def __init__(
        self, operator: SenseOperator, adjoint: Tensor, sigma_n: Tensor, prior: Denoiser
    ) -> None:
        self.operator = operator
        self.adjoint = adjoint
        self.sigma_n = sigma_n
        self.prior = prior
        self.sigma = sigma_n  # (frame,), until a temperature is set
        self.evaluations = 0

    def denoised(self, x: Tensor) -> Tensor:
        """Return E[x0 | x] at this level."""
        self.evaluations += 1
        flat = x.reshape(-1, *x.shape[-2:])
        sigmas = self.sigma.repeat_interleave(len(flat) // len(self.sigma))
        # a custom prior may return double precision, or NumPy arrays
        denoised = torch.as_tensor(self.prior.denoise(flat, sigmas), device=x.device)
        return denoised.to(x.dtype).view(x.shape)

    def prior_score(self, x: Tensor) -> Tensor:
        """Return the gradient of log p_sigma, zero where no coil is sensitive."""
        score = (self.denoised(x) - x) / _spread(self.sigma) ** 2
        return torch.where(self.operator.support, score, 0)

    def transport(self, x: Tensor, score: Tensor, sigma: Tensor) -> Tensor:
        """Move x from this level to `sigma`, given the prior's score at x.

        Scales the deviation of x from a centre, the least-squares compromise between the denoised
        image and the data. Scaling about the denoised image would leave directions wide that only
        the data determine.
        """
        denoised = x + _spread(self.sigma) ** 2 * score
        weight = _spread(self.sigma / self.sigma_n) ** 2
        correction, _ = conjugate_gradients(
            lambda p: weight * self.operator.normal(p) + p,
            weight * (self.adjoint - self.operator.normal(denoised)),
            lambda r: r / (weight * self.operator.diagonal + 1),
            TOLERANCE,
        )
        center = denoised + correction
        return center + _spread(sigma / self.sigma) * (x - center)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the log prior and of the log posterior."""
        score = self.prior_score(x)
        return score, score + self._tempered(self.adjoint - self.operator.normal(x))

    def _tempered(self, r: Tensor) -> Tensor:
        """Return A^H P (y - A x) of r = A^H (y - A x), with P of `sample_hmc`."""
        noise, blur = _spread(self.sigma_n**2), _spread(self.sigma**2)
        # Newton's form of the polynomial that interpolates 1 / (s^2 + sigma^2 g) at GAINS
        z = r / (noise + blur * GAINS[0])
        for gain in GAINS[1:]:
            z = z + (r - noise * z - blur * self.operator.normal(z)) / (noise + blur * gain)
        return z


def _spread(values: Tensor) -> Tensor:
    """Broadcast (frame,) or (frame, sample) to five axes."""
    return values.view(*values.shape, *(1 for _ in range(5 - values.ndim)))
