"""Which chain a client's scan runs through, and with which properties."""

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
ON = "; the scan goes on without it"
LATER = "later"  # a property for the server, that no node knows


def choose(
    config: Chain | UnknownChain,
    text: str | None,
    note: Note,
    *,
    named: Callable[[str], Chain],
    default: Chain | None,
    shared: Shared,
) -> Chain:
    """The chain that a client asks for, with the parameters of its JSON text.

    What is wrong with a parameter costs no scan: it is told, and the chain's own value stays.

    Parameters
    ----------
    config : asked for before the header.
    text : that follows the header, if one does.
    note : tells the client a sentence.
    named : finds a chain by name, or raises.
    default : in place of a chain that is not known; None for none.
    shared : what the scans of this process have in common.

    Raises
    ------
    UnknownChain
        Where there is none to run.
    """
    try:
        parameters = Parameters.read(text or "")
    except InputError as error:
        note(f"{error}{ON}")
        parameters = Parameters()
    chain = config
    for name in parameters.chains:
        try:
            chain = named(name)
        except InputError as error:
            note(f"{error}{ON}")
    if isinstance(chain, UnknownChain):
        if default is None:
            raise chain
        note(f"{chain}; {Path(default.name).name} takes its place")
        chain = default
    return with_properties(chain, parameters.properties, note, shared)


def with_properties(chain: Chain, values: Mapping[str, str], note: Note, shared: Shared) -> Chain:
    """A chain with those of some properties that it takes; the others are told."""
    known = [field.name for field in fields(Properties)]
    # in the order in which they are known: the number of steps has to suit the sampler
    for name in sorted(values, key=lambda n: known.index(n) if n in known else len(known)):
        try:
            if not f"{name}{values[name]}".isprintable():
                raise InputError(f"parameter '{name}' has characters that cannot be printed")
            changed = chain.with_properties({name: values[name]})
            valid(changed, shared)
        except InputError as error:
            note(f"{error}{ON}")
        else:
            chain = changed
    return chain


def valid(chain: Chain, shared: Shared) -> None:
    """Raise InputError for a property that is not known or has a bad value."""
    wants_later(chain)
    checked(chain.without(LATER), shared)


def wants_later(chain: Chain) -> bool:
    """Whether the posterior images are to be fetched when the scan has gone by.

    Raises
    ------
    InputError
        Where a chain says neither.
    """
    values = chain.values(LATER)
    for value in values:
        if value.strip().lower() not in ("true", "false"):
            raise InputError(f"property {LATER}='{value}': expected true or false")
    return "true" in {value.strip().lower() for value in values}
