"""The noise variance of the likelihood, estimated from the residual of the samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoremri_core.mri.sense import SenseOperator

RINGS = 16  # of spatial frequencies, up to the Nyquist frequency
PRIOR_COUNT = 50  # components of the prior noise estimate in each ring or line
NOISE_MARGIN = 3.0  # sd of a mean square of pure noise that are not counted as excess
MODEL_ERROR = 0.1  # of the signal power, for errors of coil maps: no excess of a line
ROUNDS = 5  # alternating updates of rings and lines


class NoiseLevel:
    """Noise variance of each k-space sample, updated from the residual of posterior samples.

        v(k) = s^2 r(|k|) q(line of k),    r >= 1, q >= 1

    (docs/methods.md, Eq. (12)).

    If the model is right, the expectation of |y - A x|^2 over posterior samples x is that of the
    noise. It is larger for errors of the coil maps, motion, a filter or a corrupt readout. Setting
    the variance to the residual and resampling is stochastic expectation maximisation [1]_; each
    noise level of the sampler takes one step of it, sample by sample.

    r is a smooth function of the spatial frequency, as errors of coil maps are. q is the excess of
    a line over it and makes the likelihood robust (a scale mixture of normals, like Student's t):
    inconsistent lines are weighted down. Lines are the rows of k-space, and also its columns if
    single samples are measured; the excess is then the product of both.

    Neither falls below 1, and the given noise counts as `PRIOR_COUNT` measured components: the
    residual of few components is mostly chance.

    Parameters
    ----------
    operator : SenseOperator
        Of all frames.
    sigma_n : float tensor, (frame,)
        Least sd s of each real component.
    reduced : complex64 tensor, (frame, 1, coil, y, x)
        The data y as returned by `SenseOperator.reduced`.

    Attributes
    ----------
    variance : float tensor, (frame, sample or 1, 1, y, x)
        v, DC at index 0; (..., y, 1) if whole readouts are measured.
    excess : float tensor, (frame, sample or 1, y, x)
        q; (..., y, 1) if whole readouts are measured.

    References
    ----------
    .. [1] Celeux G, Diebolt J. The SEM algorithm. Comput Stat Q 2:73-82 (1985).
    """

    def __init__(self, operator: SenseOperator, sigma_n: Tensor, reduced: Tensor) -> None:
        self._least = (sigma_n**2).view(-1, 1, 1, 1)
        mask = (operator.precision > 0).to(operator.precision.dtype)
        ny, nx = mask.shape[-2:]
        # averaging reduces the variance
        self._averaged = 1 / torch.where(mask > 0, operator.precision, 1)
        self.variance = self._least[..., None] * self._averaged
        self.excess = torch.ones_like(mask[:, 0])
        y, x = (torch.fft.fftfreq(n, device=mask.device) for n in (ny, nx))
        radius = (torch.hypot(y[:, None], x) * 2 * RINGS).flatten()
        # linear interpolation between the two neighbouring rings
        self._inner = radius.long()
        self._share = radius - self._inner
        components = 2 * operator.maps.shape[2] * (operator.maps.shape[-1] // nx) * mask[:, 0]
        self._components, self._count = components, self._sum_rings(components)
        power = operator.residual_power(reduced, torch.zeros_like(operator.maps[:, None, :, 0]))
        # for each axis along which lines are summed: measured components and their power
        self._lines = [
            (axis, components.sum(axis, keepdim=True), power.sum(axis, keepdim=True))
            for axis in ((-1,) if nx == 1 else (-1, -2))
        ]

    def update(self, power: Tensor) -> None:
        """Update the variance from the residual of samples.

        Parameters
        ----------
        power : float tensor, (frame, sample, y, x)
            As returned by `SenseOperator.residual_power`.
        """
        previous = self.excess
        rings = self._ring_variance(power)
        self.excess = self._line_excess(power, rings)
        # a frame without excess does not change in further rounds, which others may need
        if bool((torch.maximum(previous, self.excess) > 1).any()):
            for _ in range(ROUNDS):
                self._count = self._sum_rings(self._components / self.excess)
                rings = self._ring_variance(power)
                self.excess = self._line_excess(power, rings)
            self._count = self._sum_rings(self._components / self.excess)
        self.variance = (rings * self.excess)[:, :, None] * self._averaged

    def _ring_variance(self, power: Tensor) -> Tensor:
        """Estimate s^2 r, (frame, sample, y, x), lines weighted by their inverse excess."""
        prior = PRIOR_COUNT * self._least[..., 0]
        rings = (self._sum_rings(power / self.excess**2) + prior) / (self._count + PRIOR_COUNT)
        curve = torch.lerp(rings[..., self._inner], rings[..., self._inner + 1], self._share)
        # a residual that is not finite leaves the given noise
        curve = torch.where(curve.isfinite(), curve, 0).view(power.shape)
        return torch.maximum(curve, self._least)

    def _line_excess(self, power: Tensor, variance: Tensor) -> Tensor:
        """Estimate q, (frame, sample, y, x), relative to the variance of the rings."""
        excess = torch.ones_like(power)
        for axis, components, measured in self._lines:
            count = components + PRIOR_COUNT
            residual = (power / excess).sum(axis, keepdim=True)
            ratio = (power / (excess * variance)).sum(axis, keepdim=True)
            ratio = (ratio + PRIOR_COUNT) / count
            ratio = ratio / (1 + NOISE_MARGIN * (2 / count).sqrt())
            # least power of the signal, by the triangle inequality
            signal = (measured.sqrt() - residual.sqrt()).square()
            ratio = torch.minimum(ratio, residual / (MODEL_ERROR * signal))
            excess = excess * torch.where(ratio.isfinite(), ratio, 1).clamp(min=1)
        return excess

    def _sum_rings(self, k: Tensor) -> Tensor:
        """Sum over rings of spatial frequencies, (frame, sample, y, x) to (..., ring)."""
        k = k.flatten(2)
        total = k.new_zeros(*k.shape[:2], math.ceil(2**0.5 * RINGS) + 2)
        total.index_add_(2, self._inner, k * (1 - self._share))
        return total.index_add_(2, self._inner + 1, k * self._share)
