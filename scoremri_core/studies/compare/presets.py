"""How large the experiments are."""

from __future__ import annotations

from dataclasses import dataclass, field

from scoremri_core.errors import InputError
from scoremri_core.studies.methods.networks import Training

NARROW_FROM = 8.0


@dataclass(frozen=True)
class Preset:
    """Sizes of everything.

    Attributes
    ----------
    training : of the networks.
    slices : of each scan or volume.
    samples : posterior samples for the tables.
    pictured : posterior samples of the figures.
    further : accelerations beyond those of training, true ones.
    narrow : calibration lines from NARROW_FROM on, where those of training would be too many.
    acceleration : of all other shifts.
    decoder_iterations : of ConvDecoder, 0 for none.
    peer_steps : of the samplers of others, 0 for none.
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
    """By name.

    Attributes
    ----------
    default : two hours on two idle cores.
    quick : a look in half an hour, on small images; the networks are hardly trained.
    paper : a GPU for days.
    smoke : what tests can bear.
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
    """The preset of a name; InputError for an unknown one."""
    presets = Presets()
    if not hasattr(presets, name):
        raise InputError(f"preset '{name}': expected one of {', '.join(vars(presets))}")
    found: Preset = getattr(presets, name)
    return found
