"""The properties of a node, as its `<configuration>` element gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any
from xml.etree.ElementTree import Element

from scoremri_core.errors import InputError, similar
from scoremri_core.samplers import SAMPLERS

OUTPUTS = ("mean", "std", "phase", "samples", "zero_filled", "classical", "complex_std")
NOISE_SOURCES = ("auto", "scan", "estimate")


@dataclass(frozen=True)
class Properties:
    """What a site can set on a node.

    Attributes
    ----------
    sampler : posterior, langevin, hmc, pula, or none, which sends the classical reconstruction.
    samples : posterior samples per frame.
    steps : noise levels of the sampler; None (written "auto") takes the sampler's own.
    prior : name of a shipped prior or a path.
    seed : of the random numbers.
    device : auto, cpu, cuda or cuda:N.
    maps : sets of coil maps, 1 or 2; auto takes 2 in frames in which the object folds.
    coils : virtual coils to compress the array to; 0 keeps it as it is.
    noise : auto (noise scan if there is one, else estimated), scan, estimate, or the standard
        deviation of each real component in the units of the k-space.
    outputs : of mean, std (of the magnitude), phase, samples, zero_filled, classical and
        complex_std (of the complex value).
    series : index of the first image series.
    scale : off, or the factor of the images: a number, or auto, which chooses one for the whole
        scan (not the `scale` of `reconstruct`, which is the prior's).
    capture : folder where each scan is saved as ISMRMRD; empty saves nothing.
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
    capture: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Properties:
        """Properties from their texts; those not given keep their defaults.

        Raises
        ------
        InputError
            Naming the property, and what is known or expected.
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
        return cls(**parsed)

    @classmethod
    def from_config(cls, config: Element | None) -> Properties:
        """Properties of a `<configuration>` element (None has none).

        Raises
        ------
        InputError
            As `parse`, and where a `<property>` lacks its name or value.
        """
        values: dict[str, str] = {}
        for element in config.iter("property") if config is not None else ():
            name, value = element.get("name"), element.get("value")
            if name is None or value is None:
                raise InputError("a <property> of the node lacks its name= or value=")
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
        raise ValueError(f"a comma list, each once, of {', '.join(OUTPUTS)}")
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
    "capture": str,
}
