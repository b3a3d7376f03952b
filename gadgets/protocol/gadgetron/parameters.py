"""The JSON text by which a FIRE client sets what its user chose at the scanner."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from scoremri_core.errors import InputError

CHAINS = ("config", "customconfig")  # parameters that name a chain; the second overrules the first


@dataclass(frozen=True)
class Parameters:
    """What a client asks for beside its configuration.

    Attributes
    ----------
    chains : names of chains, the one to take last.
    properties : of the nodes, by name, as texts.
    """

    chains: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Parameters:
        """Read a TEXT message; one that is not JSON, but words, asks for nothing.

        Raises
        ------
        InputError
            Where it begins as one and is none, or its `parameters` are not.
        """
        if not text.lstrip().startswith("{"):
            return cls()
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the JSON text cannot be read ({error})") from error
        values = document.get("parameters", {})
        if not isinstance(values, dict):
            raise InputError('the JSON text has no object for "parameters"')
        texts = {name.strip(): _text(value) for name, value in values.items()}
        chains = tuple(texts[name] for name in CHAINS if texts.get(name))
        return cls(chains, {n: t for n, t in texts.items() if n not in CHAINS})


def _text(value: Any) -> str:
    """A value as a chain's XML would write it."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, float) and value.is_integer():  # 8 samples, by a user interface as 8.0
        return str(int(value))
    return json.dumps(value)
