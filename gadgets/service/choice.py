"""Select the chain of a client's scan and set its properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from gadgets.protocol.gadgetron.chain import Chain, UnknownChain
from gadgets.protocol.gadgetron.parameters import Parameters
from gadgets.service.host import checked
from gadgets.service.shared import Shared
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError

Note = Callable[[str], None]
IGNORED = "; the scan goes on without it"
LATER = "later"  # property of the server, not of a node


def choose(
    config: Chain | UnknownChain,
    text: str | None,
    note: Note,
    *,
    named: Callable[[str], Chain],
    default: Chain | None,
    shared: Shared,
) -> Chain:
    """Return the chain that a client requests, with the parameters of its JSON text.

    An invalid parameter is reported to the client, and the value of the chain is kept.

    Parameters
    ----------
    config : Chain or UnknownChain
        Chain requested before the header.
    text : str or None
        JSON text after the header.
    note : callable
        Sends a sentence to the client.
    named : callable
        Returns the chain of a name, or raises InputError.
    default : Chain or None
        Replacement of an unknown chain.
    shared : Shared
        State shared by the scans of this process.

    Returns
    -------
    Chain

    Raises
    ------
    UnknownChain
        The chain is unknown and there is no default.
    """
    try:
        parameters = Parameters.read(text or "")
    except InputError as error:
        note(f"{error}{IGNORED}")
        parameters = Parameters()
    chain = config
    for name in parameters.chains:
        try:
            chain = named(name)
        except InputError as error:
            note(f"{error}{IGNORED}")
    if isinstance(chain, UnknownChain):
        if default is None:
            raise chain
        note(f"{chain}; {Path(default.name).name} is used instead")
        chain = default
    return with_properties(chain, parameters.properties, note, shared)


def with_properties(chain: Chain, values: Mapping[str, str], note: Note, shared: Shared) -> Chain:
    """Return a chain with the valid ones of some properties; report the others."""
    known = [field.name for field in fields(Properties)]
    # the sampler before the number of steps, which depends on it
    for name in sorted(values, key=lambda n: known.index(n) if n in known else len(known)):
        try:
            if not f"{name}{values[name]}".isprintable():
                raise InputError(f"parameter '{name}' has unprintable characters")
            changed = chain.with_properties({name: values[name]})
            check_properties(changed, shared)
        except InputError as error:
            note(f"{error}{IGNORED}")
        else:
            chain = changed
    return chain


def check_properties(chain: Chain, shared: Shared) -> None:
    """Raise InputError for an unknown property or an invalid value."""
    is_deferred(chain)
    checked(chain.without(LATER), shared)


def is_deferred(chain: Chain) -> bool:
    """Return whether a chain defers the posterior images (later=true).

    Raises
    ------
    InputError
        The value is neither true nor false.
    """
    values = chain.values(LATER)
    for value in values:
        if value.strip().lower() not in ("true", "false"):
            raise InputError(f"property {LATER}='{value}': expected true or false")
    return "true" in {value.strip().lower() for value in values}
