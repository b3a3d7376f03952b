"""The U-Net for inference on a CPU, where what lies between convolutions costs as much as they."""

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
    """Whether oneDNN has kernels for that, and they are right: those that torch's compiler calls.

    They are no public part of torch, and differ from processor to processor, so that one block is
    tried first.
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
    except (RuntimeError, AttributeError, TypeError):  # none of that name, shape or precision
        return False
    expected = block(x.clone(), embedding)
    allowed = 1e-4 if precision == torch.float32 else 0.05
    return bool((found - expected).norm() < allowed * expected.norm())


def fused(model: DenoisingUnet, precision: torch.dtype) -> DenoisingUnet:
    """A copy of the network with blocks that compute the same with fewer passes over memory.

    It takes images of one noise level at a time.  Weights are those of now.
    """
    blocks = {id(block): block for stage in (*model.down, *model.up) for block in stage}
    twin = copy.deepcopy(model, dict(blocks))  # but for these, of which all is packed anew
    for stage in (*twin.down, *twin.up):
        for i, block in enumerate(stage):
            stage[i] = FusedBlock(block, precision)
    twin.requires_grad_(False).eval()
    for part in (twin.head, twin.shrink, twin.grow, twin.tail):
        part.to(precision)
    return twin


class FusedBlock(nn.Module):
    """A `Block` of two kernels beside its normalisation.

    The modulation is folded into the weights of the first convolution, once for all images of a
    noise level; the convolutions apply the activation and add the input as they write.
    """

    def __init__(self, block: Block, precision: torch.dtype) -> None:
        super().__init__()
        # in single precision, which folded weights are rounded from; no modules of this one
        self._trained = block.first, block.modulate, block.second
        self.norm = copy.deepcopy(block.norm).to(precision)
        self.precision = precision
        self._first: Any = None
        self._second: Any = None
        self._embedding: Any = None
        self._shape: Any = None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Keep the shape (batch, width, y, x); the embedding is the same for the whole batch."""
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
        """Weights in the order in which the kernel wants them, which depends on the shape.

        Given another, it reorders them at every call: for the coarsest scale of an image of 128
        that takes forty times as long as the convolution.
        """
        weight = weight.to(self.precision).contiguous(memory_format=torch.channels_last)
        pack = torch.ops.mkldnn._reorder_convolution_weight
        return pack(weight, ONE, ONE, ONE, 1, list(shape)), bias.to(self.precision)
