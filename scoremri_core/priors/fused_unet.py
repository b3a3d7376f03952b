"""The U-Net with fused kernels for inference on a CPU, limited by memory bandwidth."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from scoremri_core.priors.unet import Block, DenoisingUnet

ONE = [1, 1]  # padding, stride and dilation of the blocks' convolutions


@cache
def can_fuse(device: torch.device, precision: torch.dtype) -> bool:
    """Test whether oneDNN has correct fused kernels for a device and precision.

    The kernels, those of torch's compiler, are not public and differ between processors: one block
    is compared with its reference.

    Parameters
    ----------
    device : torch.device
    precision : torch.dtype

    Returns
    -------
    bool
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    block, x = Block(16, 8).requires_grad_(False), torch.randn(1, 16, 8, 8, generator=generator)
    for weight in block.parameters():
        weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    embedding = torch.randn(1, 8, generator=generator)
    try:
        seen = x.to(precision, memory_format=torch.channels_last)
        found = FusedBlock(block, precision)(seen, embedding).float()
    except (RuntimeError, AttributeError, TypeError):  # no kernel of that name or precision
        return False
    expected = block(x.clone(), embedding)
    allowed = 1e-4 if precision == torch.float32 else 0.05
    return bool((found - expected).norm() < allowed * expected.norm())


def fused(model: DenoisingUnet, precision: torch.dtype) -> DenoisingUnet:
    """Copy a network with fused blocks, for images of one noise level at a time.

    Parameters
    ----------
    model : DenoisingUnet
        Later changes of its weights do not affect the copy.
    precision : torch.dtype
        Of the convolutions.

    Returns
    -------
    DenoisingUnet
    """
    blocks = {id(block): block for stage in (*model.down, *model.up) for block in stage}
    network = copy.deepcopy(model, dict(blocks))  # not the blocks, whose weights are packed
    for stage in (*network.down, *network.up):
        for i, block in enumerate(stage):
            stage[i] = FusedBlock(block, precision)
    network.requires_grad_(False).eval()
    for part in (network.head, network.shrink, network.grow, network.tail):
        part.to(precision)
    return network


class FusedBlock(nn.Module):
    """A `Block` as two fused kernels after its normalisation.

    The modulation is folded into the weights of the first convolution, once per noise level; the
    convolutions include the activation and the addition of the input.

    Parameters
    ----------
    block : Block
    precision : torch.dtype
    """

    def __init__(self, block: Block, precision: torch.dtype) -> None:
        super().__init__()
        # single precision, from which folded weights are rounded; in a tuple, not registered
        self._trained = block.first, block.modulate, block.second
        self.norm = copy.deepcopy(block.norm).to(precision)
        self.precision = precision
        self._first: Any = None
        self._second: Any = None
        self._embedding: Any = None
        self._shape: Any = None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply to (batch, width, y, x); the embedding is the same for the whole batch."""
        plain, modulate, second = self._trained
        other = x.shape != self._shape
        if other or not torch.equal(self._embedding, embedding):
            scale, shift = modulate(embedding[0]).chunk(2)
            self._first = self._packed(
                plain.weight * (1 + scale).view(-1, 1, 1, 1),
                plain.bias * (1 + scale) + shift,
                x.shape,
            )
            if other:
                self._second = self._packed(second.weight, second.bias, x.shape)
            self._embedding, self._shape = embedding, x.shape
        h = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        convolve = torch.ops.mkldnn._convolution_pointwise
        h = convolve(h, *self._first, ONE, ONE, ONE, 1, "swish", [], "")
        return convolve.binary(h, x, *self._second, ONE, ONE, ONE, 1, "add", None, None, [], None)

    def _packed(self, weight: Tensor, bias: Any, shape: Any) -> tuple[Tensor, Tensor]:
        """Return weights in the memory layout of the kernel, which depends on the shape.

        In another layout the kernel reorders them at every call, which at the coarsest scale of a
        128 x 128 image takes 40 times as long as the convolution.
        """
        weight = weight.to(self.precision).contiguous(memory_format=torch.channels_last)
        pack = torch.ops.mkldnn._reorder_convolution_weight
        return pack(weight, ONE, ONE, ONE, 1, list(shape)), bias.to(self.precision)
