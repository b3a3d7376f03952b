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

TOLERANCE = 1e-2  # of where x is taken between temperatures; the proposals mend the rest
GAINS = (1.0, 0.6, 0.15)  # eigenvalues of A^H A for which the likelihood is tempered exactly


@dataclass(frozen=True)
class HmcOptions:
    """Options of annealed Hamiltonian Monte Carlo.

    Attributes
    ----------
    steps : temperatures, from sigma_max to sigma_min by a constant factor.
    sigma_max, sigma_min : first and last noise level, in units of the prior.  The last x is as
        wide as if the image had noise of sd sigma_min too; None takes s / 4, which adds 3 % to
        the sd of what was measured, kept within 0.003 (less noise than that no network was
        trained with) and 0.01.
    trajectories : proposals at each temperature.
    leapfrog : leapfrog steps of each proposal.
    step_size : leapfrog step at sigma_max over sigma_max; None takes 1.2 d^(-1/4) for d real
        unknowns, which a Gaussian accepts about three times out of four.  It falls like sigma,
        as all widths of the target do (in the paper like sigma^1.5).
    tuning : temperatures before those, above sigma_max and one proposal each, in which the step
        size is found.
    target_acceptance : acceptance that the step size is steered to, sample by sample; 0 keeps
        the step size as given.
    denoise : return E[x0 | x] of the last x, as the paper does, rather than x itself.  See
        `sample_hmc` for what that does to the samples' standard deviation.
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
        """The noise levels for data with noise `sigma_n`, those of the tuning included."""
        last = self.sigma_min
        if last is None:
            last = min(max(sigma_n / 4, 0.003), 0.01, self.sigma_max)
        factor = (last / self.sigma_max) ** (1 / max(1, self.steps - 1))
        # few temperatures are far apart: their tuning would start at a level beyond all sense
        tuning = [self.sigma_max * max(factor, 0.95) ** -i for i in range(self.tuning, 0, -1)]
        return tuning + [self.sigma_max * factor**i for i in range(self.steps)]


@dataclass(frozen=True)
class HmcRun:
    """What a run drew and how it went.

    Attributes
    ----------
    samples : (frame, sample, set, y, x).
    evaluations : denoiser evaluations per sample, tuning and path integrals included.
    sigmas : (temperature, frame) noise levels.
    acceptance : (temperature, frame, sample) fraction of the proposals that was accepted.
    step_sizes : (temperature, frame, sample) leapfrog step after each temperature.
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

    Ramzi et al. 2020, "Denoising score-matching for uncertainty quantification in inverse
    problems".  At each temperature sigma the chain targets

        p_sigma(x) exp(-(y - A x)^H P (y - A x) / 2),  P = (s^2 + sigma^2 A A^H)^-1 nearly,

    with p_sigma the prior blurred by noise of sd sigma, whose score is (D(x, sigma) - x) /
    sigma^2: the data have the noise that x has beside their own.  Proposals are leapfrog
    trajectories of unit mass; the ratio of Metropolis and Hastings takes log p_sigma from the path
    integral of the score along the straight segment between the ends (Simpson's rule through 4
    points).

    Of one coil A A^H is 1 in every sample, and P = 1 / (s^2 + sigma^2) that of the paper.  Several
    coils leave directions of which the data say little, A A^H = g far below 1.  That P would count
    the data there too little, by up to 1 / g, until sigma is below s; and trajectories, which are
    as long as sigma, are by then far too short for a direction so wide, which stays too wide and
    has its mean too near the prior's: by an sd at g = .03, s = .02 and a prior variance of .1.  So
    P is the polynomial in A A^H that is right at the eigenvalues `GAINS`.  That costs two more
    products with A^H A a step, and not the solution of a system; between 0 and 1.4 times what it
    stands for, it leaves the steps as long as they were.

    Parameters
    ----------
    operator, data, sigma_n, prior, noise : as in `sample_posterior`.
    options : schedule, proposals, what is returned.

    Returns
    -------
    samples (frame, sample, set, y, x), and the number of denoiser evaluations per sample.

    Notes
    -----
    The last x still holds the noise of sigma_min.  Along a direction that is not measured, and in
    which the prior has variance c, x has variance c + sigma_min^2 and the denoised sample
    c^2 / (c + sigma_min^2): the posterior's c lies between them.  Both are right where sigma_min
    is small against everything the posterior leaves open, which costs temperatures; where the
    two differ, that difference is what sigma_min leaves uncertain.

    The step size is steered while the chain runs, sample by sample, by the acceptance of the
    proposal before; strictly that disturbs the balance of Metropolis and Hastings, as does
    annealing itself, and a network's score, which need not be a gradient.

    Rejection is no error, and a proposal that is not finite is turned down like any.  From one
    temperature to the next, though, what x holds beyond an estimate of the image is shrunk as
    sigma is (the paper leaves x as it was).  A proposal that is turned down would leave it with
    more noise than the network expects, which takes it for image and keeps it; and a trajectory
    is too short to do the annealing as well as the sampling.
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
    """Draw samples as `sample_hmc` does, and tell the acceptance at each temperature."""
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
        # where no coil sees anything the image is zero, and x is the noise alone
        x = torch.where(operator.support, x, _spread(sigma) * noise.complex_normal(sets, ny, nx))
        score, gradient = target(x)
        law = scale * sigma[:, None]
        accepted = torch.zeros_like(log_factor)
        proposals = options.trajectories if i >= options.tuning else 1
        for _ in range(proposals):
            momentum = torch.where(operator.support, noise.complex_normal(sets, ny, nx), 0)
            end, last, end_score, end_gradient = leapfrog(
                target, x, momentum, gradient, _spread(law * log_factor.exp()), options.leapfrog
            )
            # the likelihood's gradient is linear, so that its integral needs the ends alone
            likelihood = (gradient - score) + (end_gradient - end_score)
            log_ratio = (
                path_integral(target.prior_score, x, end, score, end_score)
                + inner(end - x, likelihood) / 2
                + (inner(momentum, momentum) - inner(last, last)) / 2
            )
            # half the square of a complex normal number is distributed as -log of a uniform one
            accept = log_ratio > -noise.complex_normal().abs().square() / 2
            x = torch.where(_spread(accept), end, x)
            score = torch.where(_spread(accept), end_score, score)
            gradient = torch.where(_spread(accept), end_gradient, gradient)
            accepted += accept
            if options.target_acceptance:
                chance = log_ratio.clamp(max=0).exp().nan_to_num(0).float()
                log_factor = log_factor + chance - options.target_acceptance
        acceptance.append(accepted / proposals)
        step_sizes.append(law * log_factor.exp())
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
        "acceptance %.2f, between %.2f and %.2f over %d temperatures; %d evaluations a sample",
        float(rates.mean()),
        float(rates.min()),
        float(rates.max()),
        options.steps,
        run.evaluations,
    )
    return run


class _Target:
    """The tempered posterior at noise level `sigma`, by its gradients; counts evaluations."""

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
        """E[x0 | x] at this level."""
        self.evaluations += 1
        flat = x.reshape(-1, *x.shape[-2:])
        sigmas = self.sigma.repeat_interleave(len(flat) // len(self.sigma))
        # a foreign prior may compute in double precision, or in NumPy
        denoised = torch.as_tensor(self.prior.denoise(flat, sigmas), device=x.device)
        return denoised.to(x.dtype).view(x.shape)

    def prior_score(self, x: Tensor) -> Tensor:
        """Gradient of log p_sigma by Tweedie's formula; none where no coil sees anything."""
        score = (self.denoised(x) - x) / _spread(self.sigma) ** 2
        return torch.where(self.operator.support, score, 0)

    def transport(self, x: Tensor, score: Tensor, sigma: Tensor) -> Tensor:
        """Take x from this level to `sigma`, for the prior's score at x; evaluates nothing.

        The noise x holds shrinks as the level does, about the image that is nearest to the
        denoised one, in units of this level, and to the data, in units of theirs.  Were it
        shrunk about the denoised image alone, directions that the data know and the prior does
        not would stay as wide as they are, since there the denoiser leaves x alone.
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
        """Gradient of the log prior, and of the log posterior."""
        score = self.prior_score(x)
        return score, score + self._tempered(self.adjoint - self.operator.normal(x))

    def _tempered(self, r: Tensor) -> Tensor:
        """A^H P (y - A x) of r = A^H (y - A x), for the P of `sample_hmc`."""
        own, blur = _spread(self.sigma_n**2), _spread(self.sigma**2)
        # Newton's form of the polynomial that interpolates 1 / (s^2 + sigma^2 g) at GAINS
        z = r / (own + blur * GAINS[0])
        for gain in GAINS[1:]:
            z = z + (r - own * z - blur * self.operator.normal(z)) / (own + blur * gain)
        return z


def _spread(values: Tensor) -> Tensor:
    """(frame,) or (frame, sample) to five axes."""
    return values.view(*values.shape, *(1 for _ in range(5 - values.ndim)))
