"""Settings of a training run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoremri_core.errors import InputError
from scoremri_core.priors.ncsnv2 import NCSNv2
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.storage import read_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training.objective import SIGMA_RANGE
from scoremri_core.training.options import TrainingOptions, text_of_sizes

Network = DenoisingUnet | ResidualUnet | NCSNv2


@dataclass(frozen=True)
class Settings(TrainingOptions):
    """Options of a run, with the network and the optimiser that they describe.

    Raises
    ------
    InputError
        A setting is out of range.
    """

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` wrote, by this or an earlier version."""
        known = {field.name for field in fields(cls)}
        found: dict[str, Any] = {k: v for k, v in json.loads(text).items() if k in known}
        sizes = {k: tuple(v) for k, v in found.items() if isinstance(v, list)}
        return cls(**(found | sizes))

    def to_json(self) -> str:
        """Write the settings into a checkpoint."""
        return json.dumps(asdict(self))

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and greatest noise level of the training (three sd of signed levels)."""
        if self.architecture == "ncsnv2":
            return (self.sigma_end, self.sigma_begin)
        return (0.0, 3 * self.signed_sd) if self.loss == "signed" else SIGMA_RANGE

    @property
    def command(self) -> str:
        """The command line of a run with these settings."""
        command = (
            f"scoremri train --data DATA -o RUN --steps {self.steps} --batch {self.batch} "
            f"--patch {self.patch} --learning-rate {self.learning_rate:g} --seed {self.seed}"
        )
        if self.architecture != "unet":
            command += f" --architecture {self.architecture}"
        if self.loss == "signed":
            command += f" --loss signed --signed-sd {self.signed_sd:g}"
        if self.architecture == "ncsnv2":
            command += (
                f" --width {self.width} --depth {self.depth} --levels {self.levels}"
                f" --sigma-begin {self.sigma_begin:g} --sigma-end {self.sigma_end:g}"
            )
        if self.architecture == "residual-unet" and not self.spectral_norm:
            command += " --no-spectral-norm"
        for name in ("optimizer", "adam_eps", "schedule", "ema_decay"):
            if (value := getattr(self, name)) != getattr(Settings, name):
                command += f" --{name.replace('_', '-')} {value}"
        if self.processed != Settings.processed:
            command += f" --processed {self.processed:g}"
        if self.channels is not None:
            command += f" --channels {text_of_sizes(self.channels)}"
        if self.blocks is not None:
            command += f" --blocks {text_of_sizes(self.blocks)}"
        for option, prior in (("--start", self.start), ("--teacher", self.teacher)):
            if prior is not None:
                command += f" {option} {Path(prior).stem}"
        return command

    def network(self, begin: bool = True) -> Network:
        """Build the network before the first step.

        Parameters
        ----------
        begin : bool, optional
            Load the weights of `start`.

        Returns
        -------
        DenoisingUnet, ResidualUnet or NCSNv2

        Raises
        ------
        InputError
            Inconsistent sizes; a `start` that is not a prior of the architecture and sizes.
        """
        sizes = {"channels": self.channels, "blocks": self.blocks}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        network: Network
        if self.architecture == "ncsnv2":
            if given:
                raise InputError(f"{', '.join(given)}: expected width and depth, for an NCSNv2")
            network = NCSNv2(self.depth, self.width, 2, self.levels)
            network.sigmas.copy_(self._geometric())
            multiple = network.layout.factor
        else:
            kind = DenoisingUnet if self.architecture == "unet" else ResidualUnet
            try:
                network = kind(**given)
            except ValueError as error:  # of zip: different lengths
                wanted = ", ".join(
                    f"{name} {text_of_sizes(value)}" for name, value in given.items()
                )
                raise InputError(f"{wanted}: expected as many channels as blocks") from error
            multiple = network.multiple
        if self.patch % multiple:
            raise InputError(f"patch is {self.patch}: expected a multiple of {multiple}")
        if begin and self.start is not None:
            _begin_with(network, read_prior(self.start).model, self.start)
        return network

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Build the optimiser of a network's parameters."""
        options: dict[str, Any] = {"lr": self.learning_rate, "eps": self.adam_eps}
        if self.optimizer == "adam":
            return torch.optim.Adam(network.parameters(), **options)
        return torch.optim.AdamW(
            network.parameters(), betas=(0.9, 0.99), weight_decay=1e-3, **options
        )

    def _geometric(self) -> torch.Tensor:
        """Return decreasing noise levels (Song and Ermon 2020, technique 2)."""
        ends = math.log(self.sigma_begin), math.log(self.sigma_end)
        return torch.linspace(*ends, self.levels, dtype=torch.float64).exp().float()

    def load_teacher(self, device: torch.device | str = "cpu") -> DenoisingUnet | None:
        """Load the teacher, if there is one.

        Returns
        -------
        DenoisingUnet or None

        Raises
        ------
        InputError
            Not a prior, not a `DenoisingUnet`, or one with another preconditioning.
        """
        if self.teacher is None:
            return None
        taught, model = self.network(begin=False), read_prior(self.teacher).model
        if not (
            isinstance(model, DenoisingUnet)
            and getattr(taught, "sigma_data", model.sigma_data) == model.sigma_data
            and self.patch % model.multiple == 0
        ):
            raise InputError(f"teacher {self.teacher!r}: expected a prior of the architecture unet")
        model = model.requires_grad_(False).eval()
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _begin_with(network: nn.Module, other: nn.Module, name: str) -> None:
    """Copy the weights of `other`, which may differ in whole residual blocks."""
    weights = other.state_dict()
    try:
        lacking, foreign = network.load_state_dict(weights, strict=False)
    except RuntimeError:  # other shapes
        lacking, foreign = [], list(weights)
    # a residual block is initialised as the identity, its last convolution at zero
    if not all(re.match(r"(down|up)\.\d+\.\d+\.", key) for key in (*lacking, *foreign)):
        raise InputError(f"start {name!r}: expected a prior of the same architecture and channels")
