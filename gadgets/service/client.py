"""Client of a Gadgetron server."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.wire import ChainError, Endpoint
from gadgets.service.host import feed, messages
from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 30
# servers with another version of the header's schema hang on this element
VERSION = re.compile(r"<(\w+:)?version>[^<]*</(\w+:)?version>")


def run_remote(
    address: str, chain: Chain | str, header_xml: str, acquisitions: Iterable[Any]
) -> Iterator[Any]:
    """Stream a scan through a server and yield the items returned.

    A thread sends while the caller receives.

    Parameters
    ----------
    address : str
        HOST:PORT.
    chain : Chain or str
        Chain, sent as XML, or the name of one of the server's chains.
    header_xml : str
        ISMRMRD header.
    acquisitions : iterable
        Acquisitions and waveforms to send.

    Yields
    ------
    ismrmrd.Image and other items of the server

    Raises
    ------
    InputError
        No server answers, or it reports an error or ends the stream early.
    """
    endpoint = Endpoint(_connect(address))
    failures: list[Exception] = []

    def send() -> None:
        try:
            if isinstance(chain, Chain):
                wire.write_config(endpoint, chain.xml)
            else:
                wire.write_config_name(endpoint, chain)
            feed(endpoint, VERSION.sub("", header_xml), acquisitions)
        except OSError as error:
            logger.debug("%s stopped reading: %s", address, error)  # the receiving side reports why
        except Exception as error:  # noqa: BLE001  (raised again below)
            failures.append(error)
            endpoint.abandon()

    sender = threading.Thread(target=send, name="send", daemon=True)
    sender.start()
    try:
        yield from messages(endpoint, address)
    except ConnectionError as error:
        if failures:
            raise failures[0] from error
        raise ChainError(f"the server at {address} ended the stream early: {error}") from error
    finally:
        endpoint.abandon()
    sender.join()
    if failures:
        raise failures[0]


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError(f"address '{address}': expected HOST:PORT")
    try:
        return socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS)
    except OSError as error:
        raise InputError(f"no server answers at {address}: {error}") from error
