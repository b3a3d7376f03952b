"""Batch normalisation of averaged weights."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from scoremri_core.priors.precision import mixed_precision


def recompute_batch_norm(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Recompute the statistics of batch normalisation and set evaluation mode.

    The running statistics of the last step do not fit a moving average of weights ([1]_, section
    3.2): in a residual U-Net with 30 layers they tripled the error of the denoiser. Networks
    without batch normalisation are not changed.

    Parameters
    ----------
    network : nn.Module
        Called with images (batch, 2, y, x) and noise levels (batch,).
    batches : iterable of (float tensor, float tensor)
        Images and noise levels of the training.

    References
    ----------
    .. [1] Izmailov P et al. Averaging weights leads to wider optima. UAI (2018).
    """
    if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        with mixed_precision(next(network.parameters()).device):
            update_bn((((image, sigma),) for image, sigma in batches), _OfPairs(network))
    network.eval()


class _OfPairs(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        out: Tensor = self.network(*pair)
        return out
