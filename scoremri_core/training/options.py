"""Options of a training run, without the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from scoremri_core.errors import InputError
from scoremri_core.options import option
from scoremri_core.training import ARCHITECTURES, DEPTHS, LOSSES, OPTIMIZERS, SCHEDULES


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training run; those described are options of `scoremri train`.

    Attributes
    ----------
    steps : int
        Number of optimiser steps.
    batch : int
        Patches per step, over all processes.
    patch : int
        Patch size in pixels.
    learning_rate : float
        Peak learning rate.
    ema_decay : float
        Decay of the moving average of the weights per step.
    seed : int
        Random seed.
    checkpoint_every : int
        Steps between checkpoints.
    channels : tuple of int or None
        Channels at each scale, such as 64,128,192,192 (not for ncsnv2).
    blocks : tuple of int or None
        Residual blocks per scale, such as 3,3,3,2 (not for ncsnv2).
    architecture : str
        Network; residual-unet is that of Ramzi et al. 2020, ncsnv2 that of Jalal et al. 2021.
    loss : str
        denoising: log-normal noise levels; signed: normal, of either sign, as in Ramzi et al. 2020
        (only residual-unet).
    signed_sd : float
        Sd of the signed noise levels, for images of about 1.
    start : str or None
        Prior to initialise the weights with; missing blocks start as identity, surplus blocks are
        dropped.
    teacher : str or None
        Prior (unet) whose denoised images are the targets instead of the clean images, to distil it
        into a smaller network or another architecture.
    compile : bool
        Use torch.compile (needs a C compiler).
    optimizer : str
        adamw clips gradients to norm 1; adam does not.
    adam_eps : float
        Epsilon of the optimiser.
    schedule : str
        Learning-rate schedule; cosine starts with a warm-up.
    width : int
        Channels of ncsnv2 at full resolution.
    depth : str
        Depth of ncsnv2.
    levels : int
        Number of noise levels of ncsnv2.
    sigma_begin : float
        Largest noise level of ncsnv2, for images of about 1.
    sigma_end : float
        Smallest noise level of ncsnv2.
    spectral_norm : bool
        Bound the spectral norms of residual-unet by 2.
    processed : float
        Fraction of patches with simulated vendor processing (filtered k-space or zero background).
    """

    steps: int = option(5000, min=1)
    batch: int = option(16, min=1)
    patch: int = option(128, min=32)
    learning_rate: float = 1e-3
    warmup: int = 200  # steps before the peak of the schedule "cosine"
    ema_decay: float = 0.999
    seed: int = option(0, min=0)
    device: str = "cpu"
    checkpoint_every: int = option(250, min=1)
    channels: tuple[int, ...] | None = option(
        None, metavar="LIST", show_default="of the architecture"
    )
    blocks: tuple[int, ...] | None = option(
        None, metavar="LIST", show_default="of the architecture"
    )
    architecture: str = option("unet", choices=ARCHITECTURES)
    loss: str = option("denoising", choices=LOSSES)
    signed_sd: float = 0.5
    start: str | None = option(None, metavar="PRIOR", show_default="none")
    teacher: str | None = option(None, metavar="PRIOR", show_default="none")
    compile: bool = option(False, flags=("--compile",))
    optimizer: str = option("adamw", choices=OPTIMIZERS)
    adam_eps: float = 1e-8
    schedule: str = option("cosine", choices=SCHEDULES)
    width: int = option(32, min=1)
    depth: str = option("deeper", choices=DEPTHS)
    levels: int = option(2311, min=2)
    sigma_begin: float = 232.0
    sigma_end: float = 0.0066
    spectral_norm: bool = True
    processed: float = option(0.25, min=0, max=1)

    def __post_init__(self) -> None:
        for field in fields(self):
            value, known = getattr(self, field.name), field.metadata.get("choices")
            if known and value not in known:
                raise InputError(f"{field.name} {value!r}: expected one of {', '.join(known)}")
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
                raise InputError(f"{name} {text_of_sizes(sizes)!r}: expected numbers above 0")


def text_of_sizes(sizes: tuple[int, ...]) -> str:
    """Format sizes as an option of the command line."""
    return ",".join(map(str, sizes))
