"""ConvDecoder: an untrained network fitted to the measured samples.

Darestani & Heckel, "Accelerated MRI with un-trained neural networks", IEEE TCI 7:724-733 (2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoremri_core.mri.sense import SenseOperator
from scoremri_core.score.score import Answer
from scoremri_core.studies.methods.blocks import as_complex
from scoremri_core.studies.methods.problem import Problem


class ConvDecoder(nn.Module):
    """Layers of nearest-neighbour upsampling, 3 x 3 convolution, ReLU, normalisation.

    Parameters
    ----------
    shape : tuple of int, (y, x)
        Of the image.
    width : int, optional
        Channels.
    layers : int, optional
        Upsamplings, from a coarse grid of random numbers.
    coarsest : int, optional
        Side of that grid in pixels.
    """

    seed_image: Tensor

    def __init__(
        self, shape: tuple[int, int], width: int = 48, layers: int = 5, coarsest: int = 8
    ) -> None:
        super().__init__()
        share = [i / layers for i in range(1, layers + 1)]
        self.sizes = [tuple(round(coarsest * (n / coarsest) ** s) for n in shape) for s in share]
        self.register_buffer("seed_image", torch.randn(1, width, coarsest, coarsest))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.InstanceNorm2d(width, affine=True),
            )
            for _ in range(layers + 1)
        )
        self.tail = nn.Conv2d(width, 2, 1)

    def forward(self) -> Tensor:
        """Return the image, complex (1, y, x)."""
        h = self.seed_image
        for layer, size in zip(self.layers, self.sizes, strict=False):
            h = layer(F.interpolate(h, size))
        return as_complex(self.tail(self.layers[-1](h)))


def reconstruct(
    problem: Problem,
    device: torch.device,
    iterations: int = 200,
    width: int = 32,
    learning_rate: float = 8e-3,
    progress: Callable[[int], None] = lambda done: None,
) -> Answer:
    """Fit a decoder to the data, argmin |P F S G(w) - y|^2, and restore the measured samples.

    Parameters
    ----------
    problem : Problem
    device : torch.device
    iterations : int, optional
        Of Adam; too many fit the noise (the paper has 2,500 and more, for a wider network).
    width : int, optional
        Channels of the decoder.
    learning_rate : float, optional
    progress : callable, optional
        Called after each iteration with the number done.

    Returns
    -------
    Answer
    """
    kspace, maps, mask = problem.tensors(device)
    operator = SenseOperator(maps[:, None], mask)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(problem.seed)
        ny, nx = mask.shape[1:]
        network = ConvDecoder((ny, nx), width).to(device)
        optimizer = torch.optim.Adam(network.parameters(), learning_rate)
        for step in range(iterations):
            residual = (operator.forward(network()[:, None, None])[:, 0] - kspace) * mask[:, None]
            loss = torch.view_as_real(residual).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress(step + 1)
    with torch.no_grad():
        image = network()
        image = (
            image
            + operator.adjoint(kspace[:, None] - operator.forward(image[:, None, None]))[:, 0, 0]
        )
    return Answer(
        image[0].cpu().numpy() * problem.scale, note=f"fitted for {iterations} iterations"
    )
