"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from scoremri_core.errors import InputError
from scoremri_core.simulation.masks import CALIBRATION_MODES, KINDS
from scoremri_core.simulation.retrospective import MASKS

AXES = (
    "phase",
    "partition",
    "both",
)  # copy of scoremri_core.simulation.undersampling.AXES, which is slow to import


def choice(known: Sequence[str], *flags: str, **settings: Any) -> Any:
    """Return an option whose value is one of a few words, or a list of them.

    Parameters
    ----------
    known : sequence of str
        Valid values, for the help, the error message and shell completion.
    *flags : str
        Names of the option, such as "--mask".
    **settings
        Passed to `typer.Option`.
    """

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


def complete_chains(incomplete: str) -> list[str]:
    """Complete the name of a chain; without a match, the shell completes files."""
    from gadgets.protocol.gadgetron.chain import known

    return _starting(known())(incomplete)


def complete_priors(incomplete: str) -> list[str]:
    """Complete the name of a shipped prior, without loading torch."""
    weights = files("scoremri_core") / "priors" / "weights"
    names = (Path(file.name) for file in weights.iterdir())
    return _starting(sorted(n.stem for n in names if n.suffix == ".safetensors"))(incomplete)


def _complete_properties(incomplete: str) -> list[str]:
    """Complete KEY= of a chain's properties, and the prior."""
    from gadgets.stages.properties import Properties

    key, separator, value = incomplete.partition("=")
    if separator:
        return [f"{key}={name}" for name in complete_priors(value)] if key == "prior" else []
    return _starting([f"{field.name}=" for field in fields(Properties)])(incomplete)


# undersampling pattern
PATTERN = "Sampling pattern."
OUTSIDE = "Acceleration factor outside the calibration lines."
Mask = Annotated[str, choice(KINDS, "--mask", help=PATTERN)]
Masks = Annotated[
    list[str] | None,
    choice(
        MASKS,
        "--mask",
        help=f"{PATTERN} {MASKS[-1]} undersamples both axes. Repeatable.",
        show_default=f"{KINDS[0]}; with --data all but gaussian",
    ),
]
Acceleration = Annotated[float, typer.Option("-R", "--acceleration", metavar="R", help=OUTSIDE)]
Accelerations = Annotated[
    list[float] | None,
    typer.Option(
        "-R",
        "--acceleration",
        metavar="R",
        help=f"{OUTSIDE} Repeatable.",
        show_default="4, 6 and 8; with --data 3 for single-coil scans",
    ),
]
Calibration = Annotated[
    int,
    typer.Option(
        "--calibration", metavar="N", min=0, help="Fully sampled lines around the centre."
    ),
]
Axis = Annotated[
    str, choice(AXES, "--axis", help="Undersampled axis; partition and both need a 3D scan.")
]
CalibrationMode = Annotated[
    str,
    choice(CALIBRATION_MODES, "--calibration-mode", help="Acquisition of the calibration lines."),
]
CalibrationLast = Annotated[
    bool,
    typer.Option(
        "--calibration-last/--no-calibration-last",
        help="Acquire a reference scan after the imaging lines.",
    ),
]
PartialFourier = Annotated[
    float,
    typer.Option(
        "--partial-fourier", metavar="X", help="Acquired fraction of the phase-encode lines."
    ),
]
PartialEcho = Annotated[
    float, typer.Option("--partial-echo", metavar="X", help="Acquired fraction of each readout.")
]

Config = Annotated[
    str,
    typer.Option(
        "-c",
        "--config",
        metavar="NAME_OR_PATH.xml",
        help="Chain to run.",
        autocompletion=complete_chains,
    ),
]
ChainProperties = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--property",
        metavar="KEY=VALUE",
        help="Property of the chain. Repeatable.",
        autocompletion=_complete_properties,
        show_default="set by the chain",
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON; the log goes to stderr.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
Group = Annotated[str, typer.Option("--group", metavar="NAME", help="HDF5 group in the file.")]
Prior = Annotated[
    str,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        help="Name of a shipped prior, or path.",
        autocompletion=complete_priors,
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda|cuda:N", help="Device to compute on.")
]
Samples = Annotated[
    int, typer.Option("--samples", metavar="N", help="Number of posterior samples.", min=1)
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Random seed.", min=0)]
