"""A trained network as a prior for complex images of any size."""

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
    """Pads, casts and runs a `DenoisingUnet`.

    Parameters
    ----------
    model : the network, in evaluation mode.
    card : what is known of it; what the sampler needs of that is read here.
    precision : dtype of the convolutions; None takes the fastest of bfloat16 and float32.
    chunk : see `ModelPrior`.
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
        """Without the network in `precision`, whose packed weights cannot be pickled."""
        return {**super().__getstate__(), "_cast": (None, None)}

    @property
    def cast(self) -> Any:
        """The network with its weights in `precision`, anew where they have changed.

        Autocast would convert them, and each activation back and forth, at every call.
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
        """The same, by one layer after the other, for whoever looks at these."""
        twin = copy.copy(self)
        twin._fuse = False
        return twin

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], complex (batch, y, x)."""
        return self.denoise_with_variance(x, sigma)[0]

    @torch.no_grad()
    def denoise_with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and the error variance of each real component, pixel by pixel."""
        pairs = [self._denoise(part, levels) for part, levels in self.passes(x, sigma)]
        denoised, variance = zip(*pairs, strict=True)
        return torch.cat(denoised)[: len(x)], torch.cat(variance)[: len(x)]

    def error_spectrum(self, sigma: float, shape: tuple[int, int]) -> Tensor | None:
        """Relative power of the error at each spatial frequency, as measured for the card.

        Returns
        -------
        (y, x), centred, mean 1; None where the card has no measurement.
        """
        measured = self.card.get("error_spectrum")
        if measured is None:
            return None
        sigmas, rows = np.log(measured["sigmas"]), np.log(measured["power"])
        level = [np.interp(np.log(sigma), sigmas, column) for column in rows.T]
        power = self._radial(measured["frequencies"], level, shape)
        return power / power.mean()

    def image_spectrum(self, shape: tuple[int, int]) -> Tensor | None:
        """Variance of each real component of k-space, centred (y, x), as measured for the card."""
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
