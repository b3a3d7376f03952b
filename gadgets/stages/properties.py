"""Properties of a node, from its `<configuration>` element."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any
from xml.etree.ElementTree import Element

from scoremri_core.errors import InputError, similar
from scoremri_core.samplers import SAMPLERS

OUTPUTS = (
    "mean",
    "std",
    "phase",
    "samples",
    "zero_filled",
    "classical",
    "complex_std",
    "complex_mean",
    "quantiles",
    "coil_maps",
    "g_factor",
    "interval",
)
NOISE_SOURCES = ("auto", "scan", "estimate")


@dataclass(frozen=True)
class Properties:
    """Properties of a node.

    Attributes
    ----------
    sampler : {"posterior", "langevin", "hmc", "pula", "none"}
        "none": classical reconstruction.
    samples : int
        Posterior samples per frame.
    steps : int or None
        Noise levels of the sampler. None ("auto"): the default of the sampler.
    prior : str
        Name of a shipped prior or a path.
    seed : int
        Of the random numbers.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    maps : 1, 2 or "auto"
        Sets of coil maps; "auto" takes 2 in frames whose object aliases.
    coils : int
        Virtual coils to compress to; 0: no compression.
    noise : {"auto", "scan", "estimate"} or float
        Source of the noise covariance; "auto" takes the noise scan if there is one. A number is
        the standard deviation of each real component in units of the k-space.
    outputs : tuple of str
        Of `OUTPUTS`; "std" is of the magnitude, "complex_std" of the complex value.
    series : int
        Index of the first image series.
    scale : {"off", "auto"} or float
        Factor of the images; "auto" chooses one for the scan. Not the `scale` of `reconstruct`,
        which is that of the prior.
    guarantee : str
        File of `scoremri guarantee`, which adds the output "interval"; empty: none.
    capture : str
        Folder where each scan is saved as ISMRMRD; empty: not saved.
    """

    sampler: str = "posterior"
    samples: int = 8
    steps: int | None = None
    prior: str = "default"
    seed: int = 0
    device: str = "auto"
    maps: int | str = "auto"
    coils: int = 0
    noise: str | float = "auto"
    outputs: tuple[str, ...] = ("mean", "std")
    series: int = 1
    scale: str | float = "off"
    guarantee: str = ""
    capture: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Properties:
        """Parse properties.

        Parameters
        ----------
        values : mapping of str to str
            By name; the others keep their defaults.

        Returns
        -------
        Properties

        Raises
        ------
        InputError
            Unknown name or invalid value.
        """
        known = [field.name for field in fields(cls)]
        parsed: dict[str, Any] = {}
        for name, text in values.items():
            if name not in known:
                raise InputError(f"unknown property '{name}'{similar(name, known)}")
            try:
                parsed[name] = _PARSERS[name](text.strip())
            except ValueError as error:
                raise InputError(f"property {name}='{text}': expected {error}") from error
        outputs = parsed.get("outputs", cls.outputs)
        if "interval" in outputs and not parsed.get("guarantee"):
            raise InputError("output 'interval': expected the property guarantee=FILE")
        if parsed.get("guarantee") and "interval" not in outputs:
            parsed["outputs"] = (*outputs, "interval")
        return cls(**parsed)

    @classmethod
    def from_config(cls, config: Element | None) -> Properties:
        """Parse the properties of a `<configuration>` element; None has none.

        Raises
        ------
        InputError
            As `parse`, and for a `<property>` without name or value.
        """
        values: dict[str, str] = {}
        for element in config.iter("property") if config is not None else ():
            name, value = element.get("name"), element.get("value")
            if name is None or value is None:
                raise InputError("<property> without name= or value=")
            values[name] = value
        return cls.parse(values)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(*known: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return text

    return parse


def _steps(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return _integer(1, 100_000)(text)
    except ValueError as error:
        raise ValueError(f"auto or {error}") from None


def _maps(text: str) -> int | str:
    if text not in ("auto", "1", "2"):
        raise ValueError("auto, 1 or 2")
    return text if text == "auto" else int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", text):
        raise ValueError("auto, cpu, cuda or cuda:N")
    return text


def _choice_or_number(*known: str) -> Callable[[str], str | float]:
    def parse(text: str) -> str | float:
        if text in known:
            return text
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(f"one of {', '.join(known)}, or a positive number")
        return number

    return parse


def _outputs(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(OUTPUTS) or len(set(names)) < len(names):
        raise ValueError(f"a comma-separated list, each once, of {', '.join(OUTPUTS)}")
    return names


def _name(text: str) -> str:
    if not text:
        raise ValueError("a name or a path")
    return text


_PARSERS: dict[str, Callable[[str], Any]] = {
    "sampler": _choice(*SAMPLERS),
    "samples": _integer(1, 10_000),
    "steps": _steps,
    "prior": _name,
    "seed": _integer(0, 2**63 - 1),
    "device": _device,
    "maps": _maps,
    "coils": _integer(0, 1024),
    "noise": _choice_or_number(*NOISE_SOURCES),
    "outputs": _outputs,
    "series": _integer(0, 65_000),
    "scale": _choice_or_number("off", "auto"),
    "guarantee": str,
    "capture": str,
}
