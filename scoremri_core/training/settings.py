"""What a training run depends on, besides its data."""

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
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.storage import load_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training import ARCHITECTURES, LOSSES
from scoremri_core.training.objective import SIGMA_RANGE

Network = DenoisingUnet | ResidualUnet
NETWORKS: dict[str, type[DenoisingUnet] | type[ResidualUnet]] = dict(
    zip(ARCHITECTURES, (DenoisingUnet, ResidualUnet), strict=True)
)


@dataclass(frozen=True)
class Settings:
    """Settings of a run; those of the command line have its option's name.

    Attributes
    ----------
    batch : patches a step, over all processes.
    patch : side of a patch in pixels.
    learning_rate : at its peak, after `warmup` steps.
    channels, blocks : of the network; None takes the architecture's own.
    start : prior whose weights to begin with (a name or a path); None begins at random.  Blocks
        that it lacks are added as the identity, the last ones of a scale that has more left out.
    teacher : prior whose denoised image is learned instead of the clean one (a name or a path).
    architecture : one of `NETWORKS`.
    loss : "denoising", at log-normal noise levels, or "signed", at normal ones of either sign,
        which takes the residual U-Net.
    signed_sd : sd of the signed noise levels, in units of the images' 99th percentile.
    compile : let torch.compile fuse the network (needs a C compiler).
    """

    steps: int = 5000
    batch: int = 16
    patch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    ema_decay: float = 0.999
    seed: int = 0
    device: str = "cpu"
    checkpoint_every: int = 250
    channels: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    architecture: str = "unet"
    loss: str = "denoising"
    signed_sd: float = 0.5
    start: str | None = None
    teacher: str | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for field, value, known in (
            ("architecture", self.architecture, NETWORKS),
            ("loss", self.loss, LOSSES),
        ):
            if value not in known:
                raise InputError(f"{field} {value!r}: expected one of {', '.join(known)}")
        if self.loss == "signed" and self.architecture != "residual-unet":
            raise InputError("loss 'signed': expected with the architecture 'residual-unet'")
        for name, number in (("signed_sd", self.signed_sd), ("learning_rate", self.learning_rate)):
            if not 0 < number < math.inf:
                raise InputError(f"{name} is {number}: expected above 0")
        for name, sizes in (("channels", self.channels), ("blocks", self.blocks)):
            if sizes is not None and not (sizes and min(sizes) > 0):
                raise InputError(f"{name} {_text(sizes)!r}: expected numbers above 0")

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
        """Least and greatest noise level that training sees (signed ones: to three sd)."""
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
        if self.channels is not None:
            command += f" --channels {_text(self.channels)}"
        if self.blocks is not None:
            command += f" --blocks {_text(self.blocks)}"
        for option, prior in (("--start", self.start), ("--teacher", self.teacher)):
            if prior is not None:
                command += f" {option} {Path(prior).stem}"
        return command

    def network(self, begin: bool = True) -> Network:
        """The network before the first step.

        Parameters
        ----------
        begin : with the weights of the prior to start from, if there is one.

        Raises
        ------
        InputError : sizes that do not go together; a prior to start from that is none, or does
            not fit the architecture and sizes.
        """
        sizes = {"channels": self.channels, "blocks": self.blocks}
        given = {name: value for name, value in sizes.items() if value is not None}
        try:
            network = NETWORKS[self.architecture](**given)  # type: ignore[arg-type]
        except ValueError as error:  # of zip: one is longer than the other
            wanted = ", ".join(f"{name} {_text(value)}" for name, value in given.items())
            raise InputError(f"{wanted}: expected as many channels as blocks") from error
        if self.patch % network.multiple:
            raise InputError(f"patch is {self.patch}: expected a multiple of {network.multiple}")
        if begin and self.start is not None:
            _begin_with(network, load_prior(self.start).model, self.start)
        return network

    def teaching(self, device: torch.device | str = "cpu") -> DenoisingUnet | None:
        """The network to learn from, if there is one.

        Raises
        ------
        InputError : it is no prior, or not a `DenoisingUnet` of the same preconditioning.
        """
        if self.teacher is None:
            return None
        taught, model = self.network(begin=False), load_prior(self.teacher).model
        if not (
            isinstance(taught, DenoisingUnet)
            and isinstance(model, DenoisingUnet)
            and taught.sigma_data == model.sigma_data
            and self.patch % model.multiple == 0
        ):
            raise InputError(
                f"teacher {self.teacher!r}: expected a prior of the architecture unet, for one too"
            )
        model = model.requires_grad_(False).eval()
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _begin_with(network: nn.Module, other: nn.Module, name: str) -> None:
    """Copy the weights of `other`; they may differ in whole residual blocks."""
    weights = other.state_dict()
    try:
        lacking, foreign = network.load_state_dict(weights, strict=False)
    except RuntimeError:  # other shapes
        lacking, foreign = [], list(weights)
    # a residual block begins as the identity, with its last convolution at zero
    if not all(re.match(r"(down|up)\.\d+\.\d+\.", key) for key in (*lacking, *foreign)):
        raise InputError(f"start {name!r}: expected a prior of the same architecture and channels")


def _text(sizes: tuple[int, ...]) -> str:
    return ",".join(map(str, sizes))
