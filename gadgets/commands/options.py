"""Options that several commands share, each decided here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from scoremri_core.errors import InputError
from scoremri_core.simulation.masks import CALIBRATION_MODES, KINDS
from scoremri_core.simulation.retrospective import MASKS

AXES = ("phase", "partition", "both")  # of scoremri_core.simulation.undersampling, slower to import


def choice(known: Sequence[str], *flags: str, **settings: Any) -> Any:
    """An option whose value is one of a few words, or a list of such."""

    def check(parameter: typer.CallbackParam, value: Any) -> Any:
        for word in value if isinstance(value, list | tuple) else (value,):
            if word is not None and word not in known:
                name = (parameter.name or "").replace("_", " ")
                raise InputError(f"{name} '{word}': expected one of {', '.join(known)}")
        return value

    return typer.Option(
        *flags,
        metavar=f"[{'|'.join(known)}]",
        callback=check,
        autocompletion=_starting(known),
        **settings,
    )


def _starting(known: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


# the pattern of an accelerated scan: of undersample and simulate, and in part of others
PATTERN = "Sampling pattern."
OUTSIDE = "Acceleration outside the calibration lines."
Mask = Annotated[str, choice(KINDS, "--mask", help=PATTERN)]
Masks = Annotated[
    list[str] | None,
    choice(
        MASKS,
        "--mask",
        help=f"{PATTERN} {MASKS[-1]} leaves out samples of both axes. Repeat for several.",
        show_default=f"{KINDS[0]}; with --data all but gaussian",
    ),
]
Acceleration = Annotated[float, typer.Option("-R", "--acceleration", help=OUTSIDE)]
Accelerations = Annotated[
    list[float] | None,
    typer.Option(
        "-R",
        "--acceleration",
        help=f"{OUTSIDE} Repeat for several.",
        show_default="4, 6 and 8; with --data 3 for scans of one coil",
    ),
]
Calibration = Annotated[
    int, typer.Option("--calibration", min=0, help="Fully sampled lines around the centre.")
]
Axis = Annotated[
    str, choice(AXES, "--axis", help="Encode steps to drop; the last two of a 3D scan.")
]
CalibrationMode = Annotated[
    str, choice(CALIBRATION_MODES, "--calibration-mode", help="How the calibration is scanned.")
]
CalibrationLast = Annotated[
    bool,
    typer.Option(
        "--calibration-last/--no-calibration-last",
        help="A reference scan comes after the imaging lines.",
    ),
]
PartialFourier = Annotated[
    float,
    typer.Option("--partial-fourier", help="Share of the phase-encode lines that is acquired."),
]
PartialEcho = Annotated[
    float, typer.Option("--partial-echo", help="Share of each readout acquired.")
]

Config = Annotated[
    str, typer.Option("-c", "--config", metavar="NAME_OR_PATH.xml", help="Chain to run.")
]
ChainProperties = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--property",
        metavar="KEY=VALUE",
        help="Property of the chain; repeat.",
        show_default="as the chain says",
    ),
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are there already.")
]
Group = Annotated[str, typer.Option("--group", help="Group of the scan in the file.")]
Prior = Annotated[str, typer.Option("--prior", help="Name of a shipped prior, or a path.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda|cuda:N", help="Where to compute.")
]
Samples = Annotated[int, typer.Option("--samples", help="Posterior samples.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all that is random.", min=0)]
