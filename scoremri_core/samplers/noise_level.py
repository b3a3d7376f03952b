"""The noise of the likelihood, which follows what the samples leave of the measurements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoremri_core.mri.sense import SenseOperator

RINGS = 16  # of spatial frequencies, up to Nyquist's
KNOWN = 50  # components of the given noise that count beside those of a ring, or a line
CHANCE = 3.0  # sd of a mean square of pure noise that are no excess
MODEL_ERROR = 0.1  # of the signal's power: errors of coil maps are no excess of a line
ROUNDS = 5  # in which rings and lines settle


class NoiseLevel:
    """Variance of the noise of each sample of k-space, which follows what the samples leave.

        v(k) = s^2 r(|k|) e(line of k),    r >= 1, e >= 1

    The expectation of |y - A x|^2 over samples x of the posterior is the noise's, if the model is
    right.  Where it is more, errors of the coil maps, motion, a filter or a corrupt readout are at
    work.  Setting the variance to what was found and sampling again is stochastic expectation
    maximisation (Celeux and Diebolt 1985), one step of which a noise level of the sampler takes,
    each sample by itself.

    r is a smooth function of the spatial frequency, as errors of the coil maps are.  e is the
    excess of a line over it, which makes the likelihood robust (a scale mixture of normals, as
    Student's t is): a line that contradicts the others counts less and does not spoil the image.
    Lines are the rows of k-space; where single samples are measured its columns as well, and the
    excess is the product of both.

    Neither falls below 1, and the noise that was given counts as `KNOWN` measured components: where
    these are few their residual is mostly chance, and following it would lead away from the data.

    Parameters
    ----------
    operator : of all frames.
    sigma_n : (frame,), least sd s of each real component.
    reduced : y as `SenseOperator.reduced` gives it, (frame, 1, coil, y, x).

    Attributes
    ----------
    variance : v, (frame, sample or 1, 1, y, x), or (.., y, 1) where whole readouts are measured,
        DC at index 0.
    excess : e, (frame, sample or 1, y, x), or (.., y, 1).
    """

    def __init__(self, operator: SenseOperator, sigma_n: Tensor, reduced: Tensor) -> None:
        self._least = (sigma_n**2).view(-1, 1, 1, 1)
        mask = (operator.precision > 0).to(operator.precision.dtype)
        ny, nx = mask.shape[-2:]
        # of a sample that was averaged more often it is less
        self._averaged = 1 / torch.where(mask > 0, operator.precision, 1)
        self.variance = self._least[..., None] * self._averaged
        self.excess = torch.ones_like(mask[:, 0])
        y, x = (torch.fft.fftfreq(n, device=mask.device) for n in (ny, nx))
        radius = (torch.hypot(y[:, None], x) * 2 * RINGS).flatten()
        # a sample belongs to the two rings beside it, to each the more the nearer it is
        self._inner = radius.long()
        self._share = radius - self._inner
        components = 2 * operator.maps.shape[2] * (operator.maps.shape[-1] // nx) * mask[:, 0]
        self._components, self._count = components, self._by_ring(components)
        power = operator.residual_power(reduced, torch.zeros_like(operator.maps[:, None, :, 0]))
        # along each axis that lines are summed over: how much was measured, and its power
        self._lines = [
            (axis, components.sum(axis, keepdim=True), power.sum(axis, keepdim=True))
            for axis in ((-1,) if nx == 1 else (-1, -2))
        ]

    def follow(self, power: Tensor) -> None:
        """Take the variance from the `residual_power` of samples, (frame, sample, y, x)."""
        before = self.excess
        rings = self._of_rings(power)
        self.excess = self._of_lines(power, rings)
        # without any excess nothing changes any more, whatever others of the batch need
        if bool((torch.maximum(before, self.excess) > 1).any()):
            for _ in range(ROUNDS):
                self._count = self._by_ring(self._components / self.excess)
                rings = self._of_rings(power)
                self.excess = self._of_lines(power, rings)
            self._count = self._by_ring(self._components / self.excess)
        self.variance = (rings * self.excess)[:, :, None] * self._averaged

    def _of_rings(self, power: Tensor) -> Tensor:
        """s^2 r, (frame, sample, y, x), of lines as far as they have no excess."""
        known = KNOWN * self._least[..., 0]
        found = (self._by_ring(power / self.excess**2) + known) / (self._count + KNOWN)
        curve = torch.lerp(found[..., self._inner], found[..., self._inner + 1], self._share)
        # a residual that is not finite says nothing of the noise
        curve = torch.where(curve.isfinite(), curve, 0).view(power.shape)
        return torch.maximum(curve, self._least)

    def _of_lines(self, power: Tensor, variance: Tensor) -> Tensor:
        """e, (frame, sample, y, x), over the variance of the rings."""
        excess = torch.ones_like(power)
        for axis, components, measured in self._lines:
            count = components + KNOWN
            left = (power / excess).sum(axis, keepdim=True)
            found = ((power / (excess * variance)).sum(axis, keepdim=True) + KNOWN) / count
            found = found / (1 + CHANCE * (2 / count).sqrt())
            # the signal has at least this power, by the triangle inequality
            signal = (measured.sqrt() - left.sqrt()).square()
            found = torch.minimum(found, left / (MODEL_ERROR * signal))
            excess = excess * torch.where(found.isfinite(), found, 1).clamp(min=1)
        return excess

    def _by_ring(self, k: Tensor) -> Tensor:
        """Sums over rings of spatial frequencies, (frame, sample, y, x) to (.., ring)."""
        k = k.flatten(2)
        total = k.new_zeros(*k.shape[:2], math.ceil(2**0.5 * RINGS) + 2)
        total.index_add_(2, self._inner, k * (1 - self._share))
        return total.index_add_(2, self._inner + 1, k * self._share)
