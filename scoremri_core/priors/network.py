"""A trained U-Net as a prior for complex images of any size."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scoremri_core.priors.fused_unet import can_fuse, fused
from scoremri_core.priors.model import ModelPrior
from scoremri_core.priors.precision import fastest_precision
from scoremri_core.priors.unet import DenoisingUnet


class NetworkPrior(ModelPrior):
    """Prior of a `DenoisingUnet`, with padding and reduced precision.

    Parameters
    ----------
    model : DenoisingUnet
        In evaluation mode.
    card : dict
        See `ModelPrior`; also `error_spectrum` and `image_spectrum`.
    precision : torch.dtype, optional
        Of the convolutions. Default: the faster of bfloat16 and float32 on the device.
    chunk : int, optional
        See `ModelPrior`.
    """

    def __init__(
        self,
        model: DenoisingUnet,
        card: dict[str, Any],
        precision: torch.dtype | None = None,
        chunk: int = 8,
    ) -> None:
        super().__init__(model.to(memory_format=torch.channels_last), card, chunk)  # type: ignore[call-overload]
        self.precision = precision
        self._cast: tuple[Any, Any] = None, None
        self._fuse = True

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the network in `precision`, whose packed weights cannot be pickled."""
        return {**super().__getstate__(), "_cast": (None, None)}

    @property
    def cast(self) -> Any:
        """The network with weights in `precision`, cast again when they change.

        Autocast would convert weights and activations at every call.
        """
        weights = list(self.model.parameters())
        device = weights[0].device
        precision = self.precision or fastest_precision(device)
        state = [
            (id(self.model), id(weight), weight._version, weight.device, precision)
            for weight in weights
        ]
        known, network = self._cast
        if known != state:
            if self._fuse and can_fuse(device, precision):
                network = fused(self.model, precision)
            else:
                network = copy.deepcopy(self.model).requires_grad_(False).eval()
                for weight in network.parameters():
                    weight.data = weight.data.to(precision)
            self._cast = state, network
        return network

    def unfused(self) -> NetworkPrior:
        """Return a copy that runs layer by layer, for hooks.

        Returns
        -------
        NetworkPrior
        """
        prior = copy.copy(self)
        prior._fuse = False
        return prior

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], complex (batch, y, x)."""
        return self.denoise_with_variance(x, sigma)[0]

    @torch.no_grad()
    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and the error variance of each real component, (batch, y, x)."""
        pairs = [self._denoise(part, levels) for part, levels in self.passes(x, sigma)]
        denoised, variance = zip(*pairs, strict=True)
        return torch.cat(denoised)[: len(x)], torch.cat(variance)[: len(x)]

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor | None:
        """Interpolate the relative error power of the card at each spatial frequency.

        Returns
        -------
        float tensor, (y, x), or None
            Centred, mean 1; None if the card has no measurement.
        """
        measured = self.card.get("error_spectrum")
        if measured is None:
            return None
        sigmas, rows = np.log(measured["sigmas"]), np.log(measured["power"])
        level = [np.interp(np.log(sigma), sigmas, column) for column in rows.T]
        power = self._radial(measured["frequencies"], level, shape)
        return power / power.mean()

    def image_spectrum(self, shape: tuple[int, int]) -> Tensor | None:
        """Interpolate the variance of each real component of k-space, centred (y, x)."""
        measured = self.card.get("image_spectrum")
        if measured is None:
            return None
        return self._radial(measured["frequencies"], np.log(measured["variance"]), shape)

    def _radial(self, frequencies: list[float], logarithm: Any, shape: tuple[int, int]) -> Tensor:
        y, x = ((np.arange(n) - n // 2) / n for n in shape)
        radius = np.hypot(y[:, None], x[None, :])
        power = np.exp(np.interp(radius, frequencies, logarithm)).astype(np.float32)
        return torch.from_numpy(power).to(next(self.model.parameters()).device)

    def _denoise(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        ny, nx = x.shape[-2:]
        pad_y, pad_x = (-n % self.model.multiple for n in (ny, nx))
        planes = torch.view_as_real(x).permute(0, 3, 1, 2)
        planes = F.pad(planes, (0, pad_x, 0, pad_y), mode="replicate")
        planes = planes.contiguous(memory_format=torch.channels_last)
        mean, variance = self.cast(planes, sigma)
        mean = mean[..., :ny, :nx].permute(0, 2, 3, 1).contiguous()
        return torch.view_as_complex(mean), variance[:, 0, :ny, :nx]
