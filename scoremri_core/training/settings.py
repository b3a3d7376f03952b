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
from scoremri_core.priors.ncsnv2 import LAYOUTS, NCSNv2
from scoremri_core.priors.residual_unet import ResidualUnet
from scoremri_core.priors.storage import load_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training import ARCHITECTURES, LOSSES, OPTIMIZERS, SCHEDULES
from scoremri_core.training.objective import SIGMA_RANGE

Network = DenoisingUnet | ResidualUnet | NCSNv2


@dataclass(frozen=True)
class Settings:
    """Settings of a run, named as the options of the command line.

    Attributes
    ----------
    batch : int
        Patches per step, over all processes.
    patch : int
        Side of a patch in pixels.
    processed : float
        Fraction of patches that are filtered and masked as vendors do.
    learning_rate : float
        At its peak, after `warmup` steps of the schedule "cosine".
    optimizer : str
        "adamw" with gradients clipped to norm 1, or "adam".
    adam_eps : float
        Added to the root of the second moment.
    schedule : str
        "cosine", after a linear warm-up, or "constant".
    channels, blocks : tuple of int or None
        Of either U-Net; None takes the defaults of the architecture.
    width, depth, levels, sigma_begin, sigma_end
        Of an NCSNv2: channels at full resolution, one of `DEPTHS`, and its geometric noise levels.
    spectral_norm : bool
        Keep the spectral norms of a residual U-Net at 2.
    start : str or None
        Prior (name or path) of the initial weights; None takes random weights. Missing blocks are
        added as the identity, surplus ones at the end of a scale are left out.
    teacher : str or None
        Prior (name or path) whose denoised image replaces the clean image as the target, except for
        processed patches.
    architecture : str
        One of `ARCHITECTURES`.
    loss : str
        "denoising" with log-normal noise levels, or "signed" with normal ones of either sign, for
        the residual U-Net.
    signed_sd : float
        Sd of the signed noise levels, in units of the images' 99th percentile.
    compile : bool
        Compile the network by torch.compile (needs a C compiler).

    Raises
    ------
    InputError
        A setting is out of range.
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
    optimizer: str = "adamw"
    adam_eps: float = 1e-8
    schedule: str = "cosine"
    width: int = 32
    depth: str = "deeper"
    levels: int = 2311
    sigma_begin: float = 232.0
    sigma_end: float = 0.0066
    spectral_norm: bool = True
    processed: float = 0.25

    def __post_init__(self) -> None:
        for field, value, known in (
            ("architecture", self.architecture, ARCHITECTURES),
            ("loss", self.loss, LOSSES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("depth", self.depth, LAYOUTS),
        ):
            if value not in known:
                raise InputError(f"{field} {value!r}: expected one of {', '.join(known)}")
        if self.loss == "signed" and self.architecture != "residual-unet":
            raise InputError("loss 'signed': expected with the architecture 'residual-unet'")
        for name in (
            "signed_sd", "learning_rate", "adam_eps", "width", "levels", "sigma_begin", "sigma_end",
        ):  # fmt: skip
            if not 0 < (number := getattr(self, name)) < math.inf:
                raise InputError(f"{name} is {number}: expected above 0")
        if not 0 <= self.processed <= 1:
            raise InputError(f"processed is {self.processed}: expected 0 up to 1")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}: expected 0 up to 1")
        if self.sigma_end >= self.sigma_begin or self.levels < 2:
            raise InputError(
                f"levels: {self.levels} from sigma_begin {self.sigma_begin:g} to sigma_end "
                f"{self.sigma_end:g}: expected two or more, falling"
            )
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
            command += f" --channels {_text(self.channels)}"
        if self.blocks is not None:
            command += f" --blocks {_text(self.blocks)}"
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
                wanted = ", ".join(f"{name} {_text(value)}" for name, value in given.items())
                raise InputError(f"{wanted}: expected as many channels as blocks") from error
            multiple = network.multiple
        if self.patch % multiple:
            raise InputError(f"patch is {self.patch}: expected a multiple of {multiple}")
        if begin and self.start is not None:
            _begin_with(network, load_prior(self.start).model, self.start)
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
        taught, model = self.network(begin=False), load_prior(self.teacher).model
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


def _text(sizes: tuple[int, ...]) -> str:
    return ",".join(map(str, sizes))
