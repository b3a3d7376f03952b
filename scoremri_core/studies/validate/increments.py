"""Signals with sparse increments, whose posterior is sampled by Gibbs sampling.

After "A Statistical Benchmark for Diffusion Posterior Sampling Algorithms", ICLR 2026: a discrete
Levy process is the cumulative sum of independent increments of any distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from scoremri_core.mri.sense import SenseOperator

KINDS = ("gaussian", "laplace", "bernoulli-laplace", "student")
ATOM = 0.7  # probability that an increment of Bernoulli-Laplace is zero
DEGREES = 3.0  # of freedom of Student's t
PIXEL_VARIANCE = 0.1  # of each real component, mean over the signal
GRID_REACH = 3.0  # half-width of the denoiser's grid, outside of which the density is negligible
GRID_STEPS = (0.01, 0.03)


@dataclass(frozen=True)
class Increments:
    """Complex signals (n, 1) whose real and imaginary parts are independent cumulative sums.

    All kinds of increments have the same variance, for a mean variance of the signal of
    `PIXEL_VARIANCE`. A prior for any sampler: its denoiser is exact up to a fine grid.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    length : int
        Points n of a signal.
    """

    kind: str
    length: int

    @property
    def variance(self) -> float:
        """Variance of an increment."""
        return PIXEL_VARIANCE * 2 / (self.length + 1)

    @property
    def scale(self) -> float:
        """Scale of the increments' distribution: b of exp(-|u| / b), or Student's scale."""
        if self.kind == "student":
            return math.sqrt(self.variance * (DEGREES - 2) / DEGREES)
        share = 1 - ATOM if self.kind == "bernoulli-laplace" else 1.0
        return math.sqrt(self.variance / 2 / share)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw signals, complex (count, n, 1)."""
        shape = (count, 2, self.length)
        width = self.widths(shape, generator)
        increments = width.sqrt() * _normal(shape, generator)
        return _as_complex(increments.cumsum(-1))

    def widths(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the variances given which the increments are normal; zero for the atom."""
        if self.kind == "gaussian":
            return torch.full(shape, self.variance, dtype=torch.float64)
        if self.kind == "student":
            return self.scale**2 * DEGREES / 2 / _gamma(DEGREES / 2, shape, generator)
        widths = 2 * self.scale**2 * _exponential(shape, generator)
        if self.kind == "laplace":
            return widths
        return torch.where(_uniform(shape, generator) < ATOM, 0, widths)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], complex (batch, n, 1)."""
        return self.denoise_with_variance(x, sigma)[0]

    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and the mean variance of its two components, real (batch, n, 1).

        A cumulative sum is a Markov chain: its marginals given noisy points follow from the
        forward-backward algorithm (Rabiner 1989), here on a grid about as fine as the noise.
        """
        mean = torch.empty(x.shape, dtype=torch.complex128, device=x.device)
        variance = torch.empty(x.shape, dtype=torch.float64, device=x.device)
        for level in sigma.unique():
            mean[sigma == level], variance[sigma == level] = self._marginals(
                x[sigma == level], float(level)
            )
        return mean.to(x.dtype), variance.to(x.real.dtype)

    def _marginals(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Mean, complex, and variance, real, of signals (batch, n, 1) at one noise level."""
        parts = torch.view_as_real(x[..., 0]).double().permute(0, 2, 1).reshape(-1, self.length)
        step = min(max(sigma, GRID_STEPS[0]), GRID_STEPS[1])
        half = round(GRID_REACH / step)
        points = 2 * half + 1
        wrapped = next_fast_len(2 * points, real=True)
        grid = step * torch.arange(-half, half + 1, dtype=torch.float64, device=x.device)
        spectrum = torch.fft.rfft(self._kernel(2 * half, step, wrapped).to(x.device))

        def moved(message: Tensor) -> Tensor:
            """Propagate by one increment, in either direction: its distribution is symmetric."""
            product = torch.fft.rfft(message, n=wrapped) * spectrum
            spread = torch.fft.irfft(product, n=wrapped)[..., :points].clamp(min=0)
            return spread / spread.sum(-1, keepdim=True).clamp(min=1e-300)

        log_seen = -((parts[..., None] - grid) ** 2) / (2 * sigma**2)
        seen = (log_seen - log_seen.amax(-1, keepdim=True)).exp()
        start = torch.zeros_like(grid).expand(len(parts), -1).clone()
        start[:, half] = 1
        forward, backward = [], [torch.ones_like(start)]
        message = start
        for k in range(self.length):
            message = moved(message)
            forward.append(message)
            message = message * seen[:, k]
        for k in range(self.length - 1, 0, -1):
            backward.append(moved(backward[-1] * seen[:, k]))
        marginal = torch.stack(forward, 1) * seen * torch.stack(backward[::-1], 1)
        marginal = marginal / marginal.sum(-1, keepdim=True).clamp(min=1e-300)
        mean = marginal @ grid
        variance = ((grid - mean[..., None]) ** 2 * marginal).sum(-1)
        variance = variance.view(-1, 2, self.length).mean(1)[..., None]
        return _as_complex(mean.view(-1, 2, self.length)), variance.clamp(min=1e-6 * sigma**2)

    def _kernel(self, half: int, step: float, length: int) -> Tensor:
        """Return the probability of an increment in each cell, zero first, then wrapped."""
        edges = step * (torch.arange(-half, half + 2, dtype=torch.float64) - 0.5)
        cells = self._cumulated(edges).diff()
        if self.kind == "bernoulli-laplace":
            cells = (1 - ATOM) * cells
            cells[half] += ATOM
        kernel = torch.zeros(length, dtype=torch.float64)
        kernel[: half + 1], kernel[-half:] = cells[half:], cells[:half]
        return kernel

    def _cumulated(self, u: Tensor) -> Tensor:
        """P(increment < u), without the atom."""
        if self.kind == "gaussian":
            return torch.special.ndtr(u / math.sqrt(self.variance))
        if self.kind == "student":  # of three degrees of freedom
            t = u / self.scale / math.sqrt(DEGREES)
            return 0.5 + (t / (1 + t**2) + torch.atan(t)) / math.pi
        tail = (-u.abs() / self.scale).exp() / 2
        return torch.where(u < 0, tail, 1 - tail)


class GibbsReference:
    """p(x | y) of signals with sparse increments, by Gibbs sampling.

    Increments are normal given their variances (a scale mixture, Andrews and Mallows 1974), so that
    the signal given all variances and y is drawn exactly. The variances given the signal are
    independent: inverse Gaussian for Laplace (Park and Casella 2008), inverse gamma for Student's
    t. The zeros of Bernoulli-Laplace increments are drawn one after another, with all increments
    integrated out.

    Parameters
    ----------
    prior : Increments
    operator : SenseOperator
        A, of one frame with one set of maps.
    sigma_n : float
        Sd of each real component of the noise.
    """

    def __init__(self, prior: Increments, operator: SenseOperator, sigma_n: float) -> None:
        n = prior.length
        basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, n, 1)
        forward = operator.forward(basis).reshape(n, -1).T.to(torch.complex128)
        self.measured = operator.mask.expand(1, 1, operator.maps.shape[2], n, 1)[0, 0]
        forward = forward[self.measured.flatten()]
        # real and imaginary increments to real and imaginary data
        sums = torch.tril(torch.ones(n, n, dtype=torch.float64)).to(torch.complex128)
        columns = torch.cat((forward @ sums, 1j * forward @ sums), 1)
        self.matrix = torch.cat((columns.real, columns.imag))
        self.prior, self.sigma_n = prior, sigma_n

    def sample(
        self, data: Tensor, count: int, generator: torch.Generator, sweeps: int = 60
    ) -> Tensor:
        """Draw signals given y, each from a separate chain.

        Parameters
        ----------
        data : complex tensor, (coil, n, 1)
            y.
        count : int
        generator : torch.Generator
        sweeps : int, optional
            Per chain, from variances drawn from the prior.

        Returns
        -------
        complex tensor, (count, n)
        """
        seen = data[self.measured].to(torch.complex128).flatten()
        y = torch.cat((seen.real, seen.imag))
        n = self.prior.length
        widths = self.prior.widths((count, 2 * n), generator)
        sweeps = 1 if self.prior.kind == "gaussian" else sweeps
        for _ in range(sweeps):
            if self.prior.kind == "bernoulli-laplace":
                widths = self._atoms(y, widths, generator)
            increments = self._increments(y, widths, generator)
            widths = self._widths(increments, widths, generator)
        return _as_complex(increments.view(count, 2, n).cumsum(-1))[..., 0]

    def _precision(self, widths: Tensor) -> Tensor:
        """Invert the data's covariance given the variances, (chain, datum, datum)."""
        h = self.matrix
        covariance = (h * widths[:, None]) @ h.T
        return torch.linalg.inv(
            covariance + self.sigma_n**2 * torch.eye(len(h), dtype=torch.float64)
        )

    def _increments(self, y: Tensor, widths: Tensor, generator: torch.Generator) -> Tensor:
        """Draw exactly: a draw of the prior, corrected by its residual."""
        h = self.matrix
        drawn = widths.sqrt() * _normal(tuple(widths.shape), generator)
        left = y - drawn @ h.T - self.sigma_n * _normal((len(widths), len(y)), generator)
        gain = (self._precision(widths) @ left[..., None])[..., 0]
        return drawn + widths * (gain @ h)

    def _atoms(self, y: Tensor, widths: Tensor, generator: torch.Generator) -> Tensor:
        """Draw which increments are zero; others keep their variance or draw one from the prior."""
        fresh = 2 * self.prior.scale**2 * _exponential(tuple(widths.shape), generator)
        proposed, widths = torch.where(widths > 0, widths, fresh), widths.clone()
        precision = self._precision(widths)
        odds = math.log(1 / ATOM - 1)
        for k in range(widths.shape[1]):
            h = self.matrix[:, k]
            projected = precision @ h
            # without this increment
            part = widths[:, k] / (1 - widths[:, k] * (projected @ h))
            precision = precision + part[:, None, None] * _outer(projected)
            projected = precision @ h
            w, a, b = proposed[:, k], projected @ h, projected @ y
            log_odds = odds - torch.log1p(w * a) / 2 + w * b**2 / (1 + w * a) / 2
            there = _uniform((len(widths),), generator) < torch.sigmoid(log_odds)
            widths[:, k] = torch.where(there, w, 0)
            part = widths[:, k] / (1 + widths[:, k] * a)
            precision = precision - part[:, None, None] * _outer(projected)
        return widths

    def _widths(self, u: Tensor, widths: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the variances given the increments."""
        shape, scale = tuple(u.shape), self.prior.scale
        if self.prior.kind == "gaussian":
            return widths
        if self.prior.kind == "student":
            rate = (DEGREES * scale**2 + u**2) / 2
            return rate / _gamma((DEGREES + 1) / 2, shape, generator)
        # 1 / w is inverse Gaussian of mean 1 / (b |u|) and shape 1 / b^2
        inverse = _inverse_gaussian(
            1 / (scale * u.abs().clamp(min=1e-12)), 1 / scale**2, shape, generator
        )
        return torch.where(widths > 0, 1 / inverse, 0)


def _inverse_gaussian(
    mean: Tensor, shape: float, size: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Draw by Michael, Schucany and Haas, The American Statistician 30:88-90 (1976)."""
    v = _normal(size, generator).square()
    ratio = mean * v / (2 * shape)
    # the smaller root, without cancellation
    smaller = mean / (1 + ratio + (2 * ratio + ratio**2).sqrt())
    first = _uniform(size, generator) <= mean / (mean + smaller)
    return torch.where(first, smaller, mean**2 / smaller)


def _gamma(shape: float, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw gamma variates of scale 1 and a shape that is a multiple of 1/2."""
    return _normal((*size, round(2 * shape)), generator).square().sum(-1) / 2


def _exponential(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return -torch.log1p(-_uniform(size, generator))


def _normal(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float64)


def _uniform(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)


def _outer(v: Tensor) -> Tensor:
    return v[:, :, None] * v[:, None, :]


def _as_complex(parts: Tensor) -> Tensor:
    """(batch, 2, n) to complex (batch, n, 1)."""
    return torch.complex(parts[:, 0], parts[:, 1])[..., None]
