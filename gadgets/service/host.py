"""Embedded host: runs a chain of Python nodes in this process over Gadgetron's protocol."""

from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain, Node
from gadgets.protocol.gadgetron.connection import NodeConnection, Target, run_target
from gadgets.protocol.gadgetron.wire import ChainError, Endpoint, StreamEnded
from gadgets.service.shared import Shared
from gadgets.stages.observer import ScanObserver
from gadgets.stages.properties import Properties
from gadgets.threads import start
from scoremri_core.errors import InputError
from scoremri_core.samplers.registry import find_sampler
from scoremri_core.scans.documents import parse

logger = logging.getLogger(__name__)


def run_chain(
    chain: Chain,
    header_xml: str,
    acquisitions: Iterable[Any],
    shared: Shared | None = None,
    observer: ScanObserver | None = None,
) -> Generator[Any]:
    """Stream a scan through a chain and yield the items of its last node.

    Each node runs its target in a thread, with a connection of gadgetron-python over a socket
    pair, as on a server. If the input fails, the nodes end with an error; they do not treat the
    part received as a complete scan.

    Parameters
    ----------
    chain : Chain
        Chain of Python nodes.
    header_xml : str
        ISMRMRD header.
    acquisitions : iterable
        Acquisitions and waveforms for the first node.
    shared : Shared, optional
        State shared by the scans of this process.
    observer : ScanObserver, optional
        Observer of the frames.

    Yields
    ------
    ismrmrd.Image and other items of the last node

    Raises
    ------
    InputError
        The chain needs a Gadgetron server, a target cannot be loaded, or a node fails (with the
        node's message).
    """
    nodes = checked(chain, shared)
    targets = [_load(node) for node in nodes]
    ends: list[Endpoint] = []
    failures: list[Exception] = []
    items: Iterable[Any] = acquisitions
    try:
        for node, target in zip(nodes, targets, strict=True):
            here, there = socket.socketpair()
            ends.append(Endpoint(here))
            start(_serve, node, target, there, shared, observer)
            start(_feed, ends[-1], node, header_xml, items, failures)
            items = messages(ends[-1], node.name)
        yield from items
        if failures:
            raise failures[0]
    except ConnectionError as error:
        raise failures[0] if failures else ChainError(f"a node ended early: {error}") from error
    finally:
        for end in ends:
            end.abandon()


def checked(chain: Chain, shared: Shared | None = None) -> list[Node]:
    """Return the nodes of a chain, with the properties of scoremri's nodes validated.

    Parameters
    ----------
    chain : Chain
        Chain of Python nodes.
    shared : Shared, optional
        Restricts the priors to those loaded.

    Returns
    -------
    list of Node

    Raises
    ------
    InputError
        The chain needs a Gadgetron server, or a property is unknown or invalid.
    """
    nodes = chain.nodes()
    for node in nodes:
        if node.module.partition(".")[0] == "gadgets":
            properties = Properties.from_config(parse(node.configuration, node.name))
            if shared is not None:
                properties = shared.applied(properties)
            if properties.sampler != "none":
                find_sampler(properties.sampler, properties.steps, {})
    return nodes


def messages(endpoint: Endpoint, name: str) -> Iterator[Any]:
    """Yield the items of a stream until CLOSE; TEXT messages are logged.

    Raises
    ------
    ChainError
        The peer reports an error.
    """
    while (item := wire.read_message(endpoint)) is not None:
        if isinstance(item, str):
            if item.startswith(wire.FAILED):
                raise ChainError(f"{name}: {item}")
            logger.info("%s: %s", name, item)
        else:
            yield item


def feed(endpoint: Endpoint, header_xml: str, items: Iterable[Any]) -> None:
    """Send a header, items and CLOSE; no CLOSE if the iteration fails."""
    wire.write_header(endpoint, header_xml)
    for item in items:
        wire.write_item(endpoint, item)
    wire.write_close(endpoint)


def _feed(
    endpoint: Endpoint,
    node: Node,
    header_xml: str,
    items: Iterable[Any],
    failures: list[Exception],
) -> None:
    try:
        wire.write_config(endpoint, node.configuration)
        feed(endpoint, header_xml, items)
    except StreamEnded as error:
        failures.append(ChainError(f"the input of {node.name} ended early: {error}"))
        endpoint.abandon()
    except OSError as error:
        logger.debug("%s stopped reading: %s", node.name, error)  # the node reports why
    except Exception as error:  # noqa: BLE001  (raised again by run_chain)
        failures.append(error)
        endpoint.abandon()


def _serve(
    node: Node,
    target: Target,
    there: socket.socket,
    shared: Shared | None,
    observer: ScanObserver | None,
) -> None:
    endpoint = Endpoint(there)
    try:
        config, header = wire.read_config(endpoint), wire.read_header(endpoint)
        connection = NodeConnection(
            there, config, header, shared=shared, observer=observer, embedded=True
        )
    except OSError as error:
        logger.debug("%s received no stream: %s", node.name, error)
        endpoint.abandon()
    except InputError as error:
        wire.write_error(endpoint, str(error))
        endpoint.close()
    except Exception as error:  # noqa: BLE001  (sent to the reader)
        wire.write_error(endpoint, f"{node.name}: {type(error).__name__}: {error}")
        endpoint.close()
    else:
        run_target(target, node.name, connection)


def _load(node: Node) -> Target:
    try:
        target = getattr(importlib.import_module(node.module), node.target)
    except (ImportError, AttributeError) as error:
        raise ChainError(f"the target {node.name} cannot be loaded: {error}") from error
    if isinstance(target, type):
        return lambda connection: target().handle(connection)
    if not callable(target):
        raise ChainError(f"the target {node.name} is not callable")
    return target
