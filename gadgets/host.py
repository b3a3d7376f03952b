"""The embedded host: runs a chain of Python nodes in this process, over Gadgetron's protocol."""

from __future__ import annotations

import importlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import fromstring

from gadgetron.external.connection import Connection

from gadgets import wire
from gadgets.chain import Chain, Node
from gadgets.connection import describe
from gadgets.properties import Properties
from gadgets.wire import ChainError, Endpoint, StreamEnded

logger = logging.getLogger(__name__)


def run_chain(chain: Chain, header_xml: str, acquisitions: Iterable[Any]) -> Iterator[Any]:
    """Stream a scan through a chain and yield what comes out of its last node.

    Each node runs its target in a thread, with a connection of gadgetron-python over a socket
    pair, so that what runs here is what a server runs.

    Parameters
    ----------
    chain : of Python nodes alone.
    header_xml : the ISMRMRD header.
    acquisitions : fed to the first node as they are iterated.

    Yields
    ------
    Images, and whatever else the last node sends.

    Raises
    ------
    InputError
        Where the chain needs a Gadgetron server, a target cannot be loaded, or a node fails (the
        message is the node's own).
    """
    nodes = chain.nodes()
    for node in nodes:
        if node.module.partition(".")[0] == __package__:  # ours: told before anything starts
            Properties.from_config(fromstring(node.configuration))
    targets = [_load(node) for node in nodes]
    ends: list[Endpoint] = []
    failures: list[Exception] = []
    items: Iterable[Any] = acquisitions
    try:
        for node, target in zip(nodes, targets, strict=True):
            here, there = socket.socketpair()
            ends.append(Endpoint(here))
            _start(_serve, node, target, _NodeSocket(fileno=there.detach()))
            _start(_feed, ends[-1], node, header_xml, items, failures)
            items = messages(ends[-1], node.name)
        yield from items
        if failures:
            raise failures[0]
    except ConnectionError as error:
        raise failures[0] if failures else ChainError(f"a node ended early: {error}") from error
    finally:
        for end in ends:
            end.abandon()


class _NodeSocket(socket.socket):
    """A socket on which end of file is an error: gadgetron-python's reader would spin on it."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if size and not data:
            raise StreamEnded("the host closed the connection without a CLOSE message")
        return data


def messages(endpoint: Endpoint, name: str) -> Iterator[Any]:
    """Items from one end of a stream until its CLOSE; texts are logged.

    Raises
    ------
    ChainError
        Where the other side tells an error.
    """
    while (item := wire.read_message(endpoint)) is not None:
        if isinstance(item, str):
            logger.info("%s: %s", name, item)
        else:
            yield item


def feed(endpoint: Endpoint, header_xml: str, items: Iterable[Any]) -> None:
    """Send a header, items and CLOSE, whatever the items end with."""
    try:
        wire.write_header(endpoint, header_xml)
        for item in items:
            wire.write_item(endpoint, item)
    finally:
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
        failures.append(ChainError(f"the node before {node.name} ended early: {error}"))
    except OSError as error:
        logger.debug("%s stopped reading: %s", node.name, error)  # it says why itself
    except Exception as error:  # noqa: BLE001  (raised again by run_chain)
        failures.append(error)


def _serve(node: Node, target: Callable[[Any], None], there: socket.socket) -> None:
    try:
        with there, Connection(there) as connection:
            connection.socket = Endpoint(there)  # its close() does not lose what was sent
            try:
                target(connection)
            except ConnectionError:
                raise
            except Exception as error:
                logger.error("%s failed", node.name, exc_info=error)
                wire.write_error(connection.socket, describe(error))
    except OSError as error:
        logger.debug("%s lost its connection: %s", node.name, error)


def _load(node: Node) -> Callable[[Any], None]:
    try:
        target = getattr(importlib.import_module(node.module), node.target)
    except (ImportError, AttributeError) as error:
        raise ChainError(f"the target {node.name} cannot be loaded: {error}") from error
    if isinstance(target, type):
        return lambda connection: target().handle(connection)
    if not callable(target):
        raise ChainError(f"the target {node.name} cannot be called")
    return target


def _start(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()
