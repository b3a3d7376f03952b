"""The score network of Ramzi et al. 2020, and its prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoremri_core.priors.model import ModelPrior

SPECTRAL_NORM = 2.0


class ResidualUnet(nn.Module):
    """Score r(x, sigma) of images with noise, with the noise level as a further channel.

    A U-Net of residual blocks after [1]_: average pooling in the encoder, up-convolutions and
    concatenated skips in the decoder, a map of sigma appended to the image and to the features of
    the lowest scale, and the output divided by |sigma|. `constrain`, called after each step of the
    optimiser, keeps the spectral norm of each convolution at 2, which regularises the score where
    training images are few.

    Parameters
    ----------
    channels : sequence of int, optional
        Width at each scale; each further scale halves the resolution.
    blocks : sequence of int, optional
        Residual blocks per scale, in encoder and decoder.

    References
    ----------
    .. [1] Ramzi Z et al. Denoising score-matching for uncertainty quantification in inverse
           problems. NeurIPS Workshop (2020).
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64, 128), blocks: Sequence[int] = (2, 2, 2)
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"channels": list(channels), "blocks": list(blocks)}
        self.multiple = 2 ** (len(channels) - 1)
        self.down, self.up, self.grow = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = 2
        for i, (after, count) in enumerate(zip(channels, blocks, strict=True)):
            lowest = i + 1 == len(channels)
            noise_map = i == 0 or lowest
            self.down.append(_stage(width + noise_map, after, count))
            if not lowest:
                self.up.append(_stage(2 * after, after, count))
                self.grow.append(nn.ConvTranspose2d(channels[i + 1], after, 2, stride=2))
            width = after
        self.tail = nn.Conv2d(channels[0], 2, 3, padding=1)
        self.constrain()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the score.

        Parameters
        ----------
        x : float tensor, (batch, 2, y, x)
            Real and imaginary parts; y and x multiples of `self.multiple`.
        sigma : float tensor, (batch,)
            Noise level, not zero; may be negative in training.

        Returns
        -------
        float tensor, (batch, 2, y, x)
        """
        level = sigma.view(-1, 1, 1, 1)
        h = x
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down):
            if i > 0:
                skips.append(h)
                h = F.avg_pool2d(h, 2)
            if i in (0, len(self.down) - 1):
                h = torch.cat((h, level.expand(-1, 1, *h.shape[-2:])), 1)
            h = stage(h)
        for stage, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = stage(torch.cat((grow(h), skips.pop()), 1))
        return self.tail(h) / level.abs()

    @torch.no_grad()
    def constrain(self) -> None:
        """Scale the kernel of every convolution to spectral norm 2."""
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                layer.weight.mul_(SPECTRAL_NORM / spectral_norm(layer.weight))


class Block(nn.Module):
    """Residual block: three convolutions with batch norm, ReLU after the first two."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.project = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, y, x) to (batch, after, y, x)."""
        return self.project(x) + self.layers(x)


class ResidualUnetPrior(ModelPrior):
    """Denoiser from the score of a `ResidualUnet`, in single precision.

    Parameters
    ----------
    model : ResidualUnet
        In evaluation mode.
    card : dict
        See `ModelPrior`.
    chunk : int, optional
        See `ModelPrior`.
    """

    def __init__(self, model: ResidualUnet, card: dict[str, Any], chunk: int = 8) -> None:
        super().__init__(model, card, chunk)

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x] = x + sigma^2 r(x, sigma), complex (batch, y, x)."""
        parts = [self._denoise(part, levels) for part, levels in self.passes(x, sigma)]
        return torch.cat(parts)[: len(x)]

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        ny, nx = x.shape[-2:]
        pad_y, pad_x = (-n % self.model.multiple for n in (ny, nx))
        planes = torch.view_as_real(x).permute(0, 3, 1, 2)
        planes = F.pad(planes, (0, pad_x, 0, pad_y), mode="replicate")
        score = self.model(planes, sigma)[..., :ny, :nx].permute(0, 2, 3, 1).contiguous()
        return x + sigma.view(-1, 1, 1) ** 2 * torch.view_as_complex(score)


def spectral_norm(kernel: Tensor) -> Tensor:
    """Return the largest singular value of a kernel as a matrix of (first axis, all others).

    The norm of Miyato et al. 2018, by 64 power iterations as six squarings of the smaller Gram
    matrix, without state.

    Parameters
    ----------
    kernel : float tensor

    Returns
    -------
    float tensor, ()
    """
    matrix = kernel.flatten(1)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    gram = matrix @ matrix.T
    for _ in range(6):
        gram = gram / gram.trace()
        gram = gram @ gram
    direction = gram[:, gram.diagonal().argmax()]
    return (matrix.T @ direction).norm() / direction.norm()


def _stage(before: int, after: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(after if i else before, after) for i in range(count)))
