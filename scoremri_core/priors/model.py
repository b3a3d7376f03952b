"""What priors around a network have in common."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_MOVING = threading.Lock()  # so that two threads do not make the same copy


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
        self._copies: dict[torch.device, ModelPrior] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copied and pickled without what is made from the weights again."""
        return {**self.__dict__, "_copies": {}}

    def to(self, device: torch.device) -> ModelPrior:
        """The prior on a device: itself where its weights are there, else a copy of it.

        The weights of this object stay where they are, since another thread may be using them.
        The copy is made once, and is the same whenever it is asked for.
        """
        device = _numbered(device)
        if all(held.device == device for held in _tensors(self.model)):
            return self
        with _MOVING:
            if device not in self._copies:
                moved = copy.copy(self)
                moved.model = copy.deepcopy(self.model).to(device)
                self._copies[device] = moved
            return self._copies[device]

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


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def _numbered(device: torch.device) -> torch.device:
    """The device with its number: tensors on "cuda" say that they are on "cuda:0"."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
