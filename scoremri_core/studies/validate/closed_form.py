"""Posteriors in closed form, by dense matrices, to validate samplers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoremri_core.mri.fourier import to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.priors.mixture import GaussianMixturePrior


class ClosedForm:
    """p(x | y) for a Gaussian or mixture prior and the forward operator of a small scan.

    Each component k of the prior, N(m_k, F^H L_k F), has the posterior covariance
    C_k = (A^H A / s^2 + F^H L_k^-1 F)^-1 of each real component, independent of the data.

    Parameters
    ----------
    prior : GaussianPrior or GaussianMixturePrior
    operator : SenseOperator
        A, of one frame with one set of maps.
    sigma_n : float
        s, sd of each real component of the noise.
    """

    def __init__(
        self,
        prior: GaussianPrior | GaussianMixturePrior,
        operator: SenseOperator,
        sigma_n: float,
    ) -> None:
        ny, nx = operator.maps.shape[-2:]
        n = ny * nx
        if isinstance(prior, GaussianMixturePrior):
            weights, spectra, means = prior.weights, prior.spectra, prior.means
        else:
            weights, spectra = torch.ones(1), prior.spectrum[None]
            means = torch.zeros(1, ny, nx, dtype=torch.complex64)
        basis = torch.eye(n, dtype=torch.complex64).view(1, n, 1, ny, nx)
        forward = operator.forward(basis).reshape(n, -1).T.to(torch.complex128)
        fourier = to_kspace(basis).reshape(n, n).T.to(torch.complex128)
        self.forward = forward[operator.mask.expand(1, 1, operator.maps.shape[2], ny, nx).flatten()]
        self.measured = operator.mask[0, 0, 0]
        self.sigma_n = sigma_n
        self.weights = weights.double()
        self.prior_means = means.reshape(-1, n).to(torch.complex128)
        normal = self.forward.mH @ self.forward / sigma_n**2
        covariances, evidence = [], []
        for spectrum in spectra.reshape(-1, n, 1).double():
            root = torch.linalg.cholesky(normal + fourier.mH @ (fourier / spectrum))
            covariances.append(torch.cholesky_inverse(root))
            logdet = 2 * root.diagonal().real.log().sum()
            evidence.append(-logdet - spectrum.log().sum())
        self.covariances = torch.stack(covariances)
        self.roots = torch.linalg.cholesky(self.covariances)
        self._evidence = torch.stack(evidence)

    def given(self, data: Tensor) -> Posterior:
        """Return the posterior given y, (frame, coil, y, x)."""
        y = data[..., self.measured].flatten(1).to(torch.complex128)
        residual = y[:, None] - self.prior_means @ self.forward.T  # (frame, component, measured)
        b = residual @ self.forward.conj() / self.sigma_n**2
        shift = torch.einsum("kij,fkj->fki", self.covariances, b)
        misfit = residual.abs().square().sum(-1) / self.sigma_n**2
        explained = (b.conj() * shift).real.sum(-1)
        log_weights = self.weights.log() + self._evidence - (misfit - explained) / 2
        return Posterior(
            torch.softmax(log_weights, 1), self.prior_means + shift, self.covariances, self.roots
        )


@dataclass(frozen=True)
class Posterior:
    """A mixture of Gaussians for each frame.

    Attributes
    ----------
    weights : float tensor, (frame, component)
    means : complex tensor, (frame, component, pixel)
    covariances : complex tensor, (component, pixel, pixel)
        Hermitian, of each real component.
    roots : complex tensor, (component, pixel, pixel)
        Their Cholesky factors.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    roots: Tensor

    def mean(self) -> Tensor:
        """Return the mean, complex (frame, pixel)."""
        return (self.weights[..., None] * self.means).sum(1)

    def covariance(self, frame: int) -> Tensor:
        """Return E[d d^H] / 2 of the deviation d from the mean, (pixel, pixel)."""
        apart = (self.means - self.mean()[:, None])[frame]
        weights = self.weights[frame].to(apart.dtype)
        within = torch.einsum("k,kij->ij", weights, self.covariances)
        return within + torch.einsum("k,ki,kj->ij", weights / 2, apart, apart.conj())

    def sd(self) -> Tensor:
        """Return the root-mean-square sd of the two real components, (frame, pixel)."""
        within = self.weights @ self.covariances.diagonal(dim1=1, dim2=2).real
        apart = (self.means - self.mean()[:, None]).abs().square() / 2
        return (within + (self.weights[..., None] * apart).sum(1)).sqrt()

    def probabilities(self, samples: Tensor) -> Tensor:
        """Return p(component | x, y) of samples (frame, sample, pixel): (..., component)."""
        log_joint = []
        for k, root in enumerate(self.roots):
            apart = (samples - self.means[:, k, None]).flatten(0, 1)
            white = torch.linalg.solve_triangular(root, apart.mT, upper=False)
            energy = white.abs().square().sum(0).view(samples.shape[:2]) / 2
            log_joint.append(
                self.weights[:, k, None].log() - energy - 2 * root.diagonal().real.log().sum()
            )
        return torch.softmax(torch.stack(log_joint, -1), -1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw exact samples, complex (frame, sample, pixel)."""
        kinds = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        shape = (*kinds.shape, self.means.shape[-1], 2)
        e = torch.view_as_complex(torch.randn(shape, generator=generator, dtype=torch.float64))
        draws = torch.empty_like(e)
        for k, root in enumerate(self.roots):
            frame, index = torch.nonzero(kinds == k, as_tuple=True)
            draws[frame, index] = self.means[frame, k] + e[frame, index] @ root.T
        return draws
