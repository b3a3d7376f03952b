"""What priors around a network have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """

    def __init__(self, model: nn.Module, card: dict[str, Any]) -> None:
        self.model: Any = model
        self.card = card
        self.name: str = card["name"]
        self.variance_scale = float(card.get("variance_scale", 1.0))
        self.inflation = float(card.get("inflation", 1.0))

    def to(self, device: torch.device) -> ModelPrior:
        """Move the weights; returns the prior."""
        self.model.to(device)
        return self

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], complex (batch, y, x)."""
