"""What priors around a network have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class ModelPrior(ABC):
    """A prior around a network.

    Parameters
    ----------
    model : the network, in evaluation mode.
    card : what is known of it; `name` and the factors on the error variance (`variance_scale` and
        `inflation`, see `PosteriorOptions`) are read here.
    chunk : images per pass on a GPU, which bounds the memory.
    """

    def __init__(self, model: nn.Module, card: dict[str, Any], chunk: int = 8) -> None:
        self.model: Any = model
        self.chunk = chunk
        self.card = card
        self.name: str = card["name"]
        self.variance_scale = float(card.get("variance_scale", 1.0))
        self.inflation = float(card.get("inflation", 1.0))

    def to(self, device: torch.device) -> ModelPrior:
        """Move the weights; returns the prior."""
        self.model.to(device)
        return self

    def passes(self, x: Tensor, sigma: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts of a batch, all of one size; the last is filled up with copies of its last image.

        Kernels round by the size of the batch (those for AMX and those of a GPU above all), and a
        sample is to be the same alone and in company.  On a CPU each image goes alone, which is as
        fast as eight together.
        """
        size = 1 if x.device.type == "cpu" else self.chunk
        if missing := -len(x) % size:
            x = torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
            sigma = torch.cat((sigma, sigma[-1:].expand(missing)))
        yield from zip(x.split(size), sigma.split(size), strict=True)

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], complex (batch, y, x)."""
