"""JSON text with the parameters of a FIRE client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from scoremri_core.errors import InputError

CHAINS = ("config", "customconfig")  # parameters that name a chain; the second takes precedence


@dataclass(frozen=True)
class Parameters:
    """Parameters of a client.

    Attributes
    ----------
    chains : tuple of str
        Names of chains, in order of increasing precedence.
    properties : dict of str to str
        Properties of the nodes.
    """

    chains: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Parameters:
        """Parse a TEXT message; text that is not a JSON object has no parameters.

        Raises
        ------
        InputError
            The JSON object or its `parameters` are invalid.
        """
        if not text.lstrip().startswith("{"):
            return cls()
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the JSON text is invalid ({error})") from error
        values = document.get("parameters", {})
        if not isinstance(values, dict):
            raise InputError('the JSON text has no object "parameters"')
        texts = {name.strip(): _text(value) for name, value in values.items()}
        chains = tuple(texts[name] for name in CHAINS if texts.get(name))
        return cls(chains, {n: t for n, t in texts.items() if n not in CHAINS})


def _text(value: Any) -> str:
    """Format a value as in the XML of a chain."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, float) and value.is_integer():  # user interfaces send 8 as 8.0
        return str(int(value))
    return json.dumps(value)
