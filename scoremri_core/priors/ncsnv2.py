"""The score network NCSNv2 of Song and Ermon 2020 (arXiv 2006.09011), a RefineNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoremri_core.errors import InputError


@dataclass(frozen=True)
class Scale:
    """One scale of the encoder, `res{name}`.

    The first scale keeps the resolution; the others halve it, or dilate if `dilation` > 1.

    Attributes
    ----------
    name : str
    width : int
        Channels, in units of ngf.
    dilation : int
    """

    name: str
    width: int
    dilation: int = 1


@dataclass(frozen=True)
class Layout:
    """Scales of the encoder and blocks of the decoder.

    Attributes
    ----------
    scales : tuple of Scale
        Fine to coarse.
    refine : tuple of str
        Names of the decoder's blocks, coarse to fine.
    """

    scales: tuple[Scale, ...]
    refine: tuple[str, ...]

    @property
    def factor(self) -> int:
        """Downsampling of the coarsest scale."""
        return int(2 ** sum(scale.dilation == 1 for scale in self.scales[1:]))


# The paper's three depths, for images of 32 to 64, 96 to 128 and 256 pixels. Names are those of the
# public checkpoints, where the sixth scale is called 31.
LAYOUTS = {
    "plain": Layout(
        (Scale("1", 1), Scale("2", 2), Scale("3", 2, 2), Scale("4", 2, 4)),
        ("1", "2", "3", "4"),
    ),
    "deeper": Layout(
        (Scale("1", 1), Scale("2", 2), Scale("3", 2), Scale("4", 4, 2), Scale("5", 4, 4)),
        ("1", "2", "3", "4", "5"),
    ),
    "deepest": Layout(
        (
            Scale("1", 1),
            Scale("2", 2),
            Scale("3", 2),
            Scale("31", 2),
            Scale("4", 4, 2),
            Scale("5", 4, 4),
        ),
        ("1", "2", "31", "3", "4", "5"),
    ),
}


class NCSNv2(nn.Module):
    """Score of images with noise of one of `levels` standard deviations.

        s(x, i) = f(h) / sigma_i,    h = 2 x - 1 (or x, if `rescaled`)

    The network f is not conditioned on the noise level (technique 3 of the paper). Parameters have
    the names and shapes of the public checkpoints, which load by name.

    Parameters
    ----------
    variant : str, optional
        "plain", "deeper" or "deepest".
    ngf : int, optional
        Channels at full resolution.
    channels : int, optional
        Of the image; 2 for the real and imaginary parts.
    levels : int, optional
        Number of noise levels, the length of the buffer `sigmas`.
    rescaled : bool, optional
        The network was trained on images rescaled to [-1, 1] (or by a logit) and takes x directly.

    Raises
    ------
    InputError
        An unknown variant.
    """

    sigmas: Tensor

    def __init__(
        self,
        variant: str = "deepest",
        ngf: int = 128,
        channels: int = 2,
        levels: int = 2311,
        rescaled: bool = False,
    ) -> None:
        super().__init__()
        if variant not in LAYOUTS:
            raise InputError(f"NCSNv2 variant {variant!r}: expected one of {', '.join(LAYOUTS)}")
        self.config: dict[str, Any] = {
            "variant": variant,
            "ngf": ngf,
            "channels": channels,
            "levels": levels,
            "rescaled": rescaled,
        }
        self.layout = LAYOUTS[variant]
        self.rescaled = rescaled
        self.register_buffer("sigmas", torch.ones(levels))
        self.begin_conv = conv(channels, ngf)
        self.normalizer = InstanceNormPlus(ngf)
        self.end_conv = conv(ngf, channels)

        before = ngf
        for i, scale in enumerate(self.layout.scales):
            width, dilation = scale.width * ngf, scale.dilation
            first = ResidualBlock(before, width, dilation, down=i > 0)
            second = ResidualBlock(width, width, dilation)
            setattr(self, f"res{scale.name}", nn.ModuleList([first, second]))
            before = width

        widths = [scale.width * ngf for scale in self.layout.scales]
        for i, name in enumerate(self.layout.refine):
            width, finer = widths[-1 - i], widths[max(-2 - i, -len(widths))]
            last = i + 1 == len(widths)
            block = RefineBlock([width] if i == 0 else [width, width], finer, 3 if last else 1)
            setattr(self, f"refine{name}", block)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return the score.

        Parameters
        ----------
        x : float tensor, (batch, channels, y, x)
        level : int tensor, (batch,)
            Indices into `sigmas`.

        Returns
        -------
        float tensor, (batch, channels, y, x)
        """
        return self.unscaled(x) / self.sigmas[level].view(-1, 1, 1, 1)

    def unscaled(self, x: Tensor) -> Tensor:
        """Return the score times sigma, f.

        Parameters
        ----------
        x : float tensor, (batch, channel, y, x)

        Returns
        -------
        float tensor, (batch, channel, y, x)

        Raises
        ------
        InputError
            The image is too small.
        """
        ny, nx = x.shape[-2:]
        if (ny // self.layout.factor) * (nx // self.layout.factor) < 2:
            raise InputError(
                f"image of {ny} x {nx}: expected at least two pixels after the NCSNv2's "
                f"downsampling by {self.layout.factor}"
            )
        h = self.begin_conv(x if self.rescaled else 2 * x - 1)
        kept = []
        for scale in self.layout.scales:
            for block in getattr(self, f"res{scale.name}"):
                h = block(h)
            kept.append(h)
        h = getattr(self, f"refine{self.layout.refine[0]}")([kept.pop()])
        for name in self.layout.refine[1:]:
            # the first input, the finer scale, sets the size
            h = getattr(self, f"refine{name}")([kept.pop(), h])
        out: Tensor = self.end_conv(F.elu(self.normalizer(h)))
        return out


def conv(
    before: int, after: int, kernel: int = 3, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    """Return a zero-padded convolution that keeps the size.

    Parameters
    ----------
    before, after : int
        Channels of the input and of the output.
    kernel : int, optional
    dilation : int, optional
    bias : bool, optional

    Returns
    -------
    torch.nn.Conv2d
    """
    padding = dilation * (kernel // 2)
    return nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation, bias=bias)


class InstanceNormPlus(nn.Module):
    """Instance normalisation that keeps the relative means of channels (InstanceNorm++).

    Song and Ermon 2019, arXiv 1907.05600, appendix A:

        z_k = gamma_k ((x_k - mu_k) / s_k + alpha_k (mu_k - m) / v) + beta_k

    with mu_k and s_k the mean and sd over the pixels of channel k, m and v those of the mu_k.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(width))
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, width, y, x)."""
        means = x.mean((2, 3), keepdim=True)
        centre, across = means.mean(1, keepdim=True), means.var(1, keepdim=True)
        relative = (means - centre) / (across + 1e-5).sqrt()
        alpha, gamma, beta = (p.view(-1, 1, 1) for p in (self.alpha, self.gamma, self.beta))
        return gamma * (F.instance_norm(x) + alpha * relative) + beta


class ConvMeanPool(nn.Module):
    """Convolve and average over 2 x 2 pixels, dropping the last line of an odd size."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = conv(before, after, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, y, x) to (batch, after, y // 2, x // 2)."""
        return F.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """Two layers of normalisation, ELU and convolution, with a shortcut.

    Parameters
    ----------
    before, after : int
        Channels, equal unless `down`.
    dilation : int
        Of the convolutions.
    down : bool, optional
        Go down one scale: halve the resolution unless dilated, and convolve the shortcut.
    """

    def __init__(self, before: int, after: int, dilation: int, down: bool = False) -> None:
        super().__init__()
        self.normalize1 = InstanceNormPlus(before)
        self.conv1 = conv(before, before, dilation=dilation)
        self.normalize2 = InstanceNormPlus(before)
        self.conv2: nn.Module
        self.shortcut: nn.Module
        if down and dilation == 1:
            self.conv2 = ConvMeanPool(before, after, 3)
            self.shortcut = ConvMeanPool(before, after, 1)
        else:
            self.conv2 = conv(before, after, dilation=dilation)
            self.shortcut = conv(before, after, dilation=dilation) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, y, x) to (batch, after, y, x), or half the size."""
        h = self.conv1(F.elu(self.normalize1(x)))
        h = self.conv2(F.elu(self.normalize2(h)))
        return torch.add(self.shortcut(x), h)


class ResidualConvUnits(nn.Module):
    """Residual units of two (ELU, convolution) each (RefineNet's RCU, Lin et al. 2017)."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.units = units
        for i in range(1, units + 1):
            setattr(self, f"{i}_1_conv", conv(width, width, bias=False))
            setattr(self, f"{i}_2_conv", conv(width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, width, y, x)."""
        for i in range(1, self.units + 1):
            h = getattr(self, f"{i}_1_conv")(F.elu(x))
            x = x + getattr(self, f"{i}_2_conv")(F.elu(h))
        return x


class MultiScaleFusion(nn.Module):
    """Convolve each scale to one width, bring all to the first one's size and add (MSF)."""

    def __init__(self, before: list[int], after: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(width, after) for width in before)

    def forward(self, scales: list[Tensor]) -> Tensor:
        """To (batch, after, y, x) with y, x of the first scale."""
        size = scales[0].shape[2:]
        total = torch.zeros((), device=scales[0].device)
        for layer, x in zip(self.convs, scales, strict=True):
            total = total + F.interpolate(layer(x), size, mode="bilinear", align_corners=True)
        return total


class ChainedResidualPooling(nn.Module):
    """Sum of a chain of 5 x 5 max poolings, each convolved (CRP)."""

    def __init__(self, width: int, stages: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(width, width, bias=False) for _ in range(stages))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, width, y, x)."""
        total = path = F.elu(x)
        for layer in self.convs:
            path = layer(F.max_pool2d(path, 5, stride=1, padding=2))
            total = total + path
        return total


class RefineBlock(nn.Module):
    """One block of the decoder (Lin et al. 2017, RefineNet): RCU, MSF, CRP and RCU.

    Parameters
    ----------
    before : list of int
        Channels of the inputs: the encoder's scale and the previous block of the decoder.
    after : int
        Channels of the output.
    units : int
        Residual units at the end.
    """

    def __init__(self, before: list[int], after: int, units: int) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvUnits(width, 2) for width in before)
        self.output_convs = ResidualConvUnits(after, units)
        if len(before) > 1:
            self.msf = MultiScaleFusion(before, after)
        self.crp = ChainedResidualPooling(after)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """To (batch, after, y, x) of the first input's size."""
        adapted = [rcu(x) for rcu, x in zip(self.adapt_convs, inputs, strict=True)]
        fused = self.msf(adapted) if len(adapted) > 1 else adapted[0]
        out: Tensor = self.output_convs(self.crp(fused))
        return out
