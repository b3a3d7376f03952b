"""Base class of priors that are networks."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_COPY_LOCK = threading.Lock()  # two threads must not make the same copy


class ModelPrior(ABC):
    """A network as a prior.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    card : dict
        Its card, with `name` and the factors on the error variance (`variance_scale` and
        `inflation`, see `PosteriorOptions`).
    chunk : int, optional
        Images per pass on a GPU.
    """

    def __init__(self, model: nn.Module, card: dict[str, Any], chunk: int = 8) -> None:
        self.model: Any = model
        self.chunk = chunk
        self.card = card
        self.name: str = card["name"]
        self.variance_scale = float(card.get("variance_scale", 1.0))
        self.inflation = float(card.get("inflation", 1.0))
        self._copies: dict[torch.device, ModelPrior] = {}

    @property
    def is_measured(self) -> bool:
        """Whether the card has the error of the denoiser (see `scoremri measure`)."""
        return "denoiser_error" in self.card

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the copies on other devices."""
        return {**self.__dict__, "_copies": {}}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(_tensors(self.model)).device

    def to(self, device: torch.device) -> ModelPrior:
        """Return the prior on a device: this object, or a cached copy of it.

        The weights of this object are not moved, since another thread may be using them.

        Parameters
        ----------
        device : torch.device

        Returns
        -------
        ModelPrior
        """
        device = _numbered(device)
        if all(held.device == device for held in _tensors(self.model)):
            return self
        with _COPY_LOCK:
            if device not in self._copies:
                moved = copy.copy(self)
                moved.model = copy.deepcopy(self.model).to(device)
                self._copies[device] = moved
            return self._copies[device]

    def passes(self, x: Tensor, sigma: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Split a batch into parts of one size, the last padded with copies of its last image.

        Rounding in kernels depends on the batch size (in particular for AMX and on GPUs), but a
        sample must not depend on the batch. Images go one by one on a CPU, which is as fast.

        Parameters
        ----------
        x : complex tensor, (batch, y, x)
        sigma : float tensor, (batch,)

        Yields
        ------
        x, sigma : tensor
            Parts of equal length.
        """
        size = 1 if x.device.type == "cpu" else self.chunk
        if missing := -len(x) % size:
            x = torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
            sigma = torch.cat((sigma, sigma[-1:].expand(missing)))
        yield from zip(x.split(size), sigma.split(size), strict=True)

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], complex (batch, y, x)."""


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def _numbered(device: torch.device) -> torch.device:
    """Add the index to a device: tensors moved to "cuda" are on "cuda:0"."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
