"""Sizes of the experiments."""

from __future__ import annotations

from dataclasses import dataclass, field

from scoremri_core.errors import InputError
from scoremri_core.studies.methods.networks import Training

NARROW_FROM = 8.0


@dataclass(frozen=True)
class Preset:
    """Sizes of an experiment.

    Attributes
    ----------
    training : Training
        Of the networks.
    slices : int
        Per scan or volume.
    samples : int
        Posterior samples for the tables.
    pictured : int
        Posterior samples for the figures.
    further : tuple of float
        True accelerations beyond those of the training.
    narrow : str
        Calibration lines for accelerations from NARROW_FROM on.
    acceleration : float
        Of all other shifts.
    decoder_iterations : int
        Of ConvDecoder; 0 leaves it out.
    peer_steps : int
        Of the samplers of other libraries; 0 leaves them out.
    """

    training: Training
    slices: int
    samples: int = 8
    pictured: int = 48
    further: tuple[float, ...] = (9.0, 12.0)
    narrow: str = "4%"
    acceleration: float = 6.0
    decoder_iterations: int = 200
    peer_steps: int = 100


SMALL = {
    "varnet": {"width": 8, "cascades": 4},
    "modl": {"width": 32, "turns": 5},
    "updnet": {"width": 12, "turns": 4},
}
PAPER = {
    "varnet": {"width": 18, "cascades": 12},
    "modl": {"width": 64, "turns": 10},
    "updnet": {"width": 32, "turns": 10},
}
TINY = {
    "varnet": {"width": 4, "cascades": 1},
    "modl": {"width": 8, "turns": 2, "layers": 3, "iterations": 3},
    "updnet": {"width": 4, "turns": 1},
}


@dataclass(frozen=True)
class Presets:
    """Presets by name.

    Attributes
    ----------
    default : Preset
        Two hours on two idle cores.
    quick : Preset
        Half an hour, on small images with hardly trained networks.
    paper : Preset
        Days on a GPU.
    smoke : Preset
        For tests.
    """

    default: Preset = field(default_factory=lambda: Preset(Training(options=SMALL), slices=3))
    quick: Preset = field(
        default_factory=lambda: Preset(
            Training(20000, 3, 96, 6, 60, "13%", (2.5, 4.0), options=SMALL),
            slices=1,
            samples=4,
            pictured=16,
            further=(6.0,),
            acceleration=4.0,
            decoder_iterations=0,
            peer_steps=20,
        )
    )
    paper: Preset = field(
        default_factory=lambda: Preset(
            Training(200_000, 600, 320, 12, 1000, learning_rate=3e-4, options=PAPER),
            slices=20,
            further=(4.0, 8.0, 10.0, 12.0),
            samples=48,
            decoder_iterations=2500,
            peer_steps=1000,
        )
    )
    smoke: Preset = field(
        default_factory=lambda: Preset(
            Training(4, 1, 48, 4, 3, "25%", (2.0, 2.5), options=TINY),
            slices=2,
            samples=2,
            pictured=3,
            further=(3.0,),
            narrow="25%",
            acceleration=2.5,
            decoder_iterations=3,
            peer_steps=3,
        )
    )


def find_preset(name: str) -> Preset:
    """Return a preset by name; raise InputError for an unknown one."""
    presets = Presets()
    if not hasattr(presets, name):
        raise InputError(f"preset '{name}': expected one of {', '.join(vars(presets))}")
    found: Preset = getattr(presets, name)
    return found
