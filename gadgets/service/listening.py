"""Listening sockets."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence

from scoremri_core.errors import InputError

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1")
BACKLOG = 64


def listen(hosts: Sequence[str], port: int, option: str = "--port") -> list[socket.socket]:
    """Listen on one port of some addresses.

    Parameters
    ----------
    hosts : sequence of str
        IPv4 or IPv6 addresses; those of `LOOPBACK` that the machine has.
    port : int
        Port; 0 chooses a free one.
    option : str, optional
        Option that sets the port, for the error message.

    Returns
    -------
    list of socket.socket

    Raises
    ------
    InputError
        The port is in use, or an address is not available.
    """
    listeners: list[socket.socket] = []
    for host in hosts:
        if listeners:
            port = listeners[0].getsockname()[1]
        try:
            for family, _, _, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                listeners.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
        except OSError as error:
            if error.errno != errno.EADDRINUSE and hosts is LOOPBACK and listeners:
                logger.debug("not listening on %s: %s", host, error)
                continue
            for listener in listeners:
                listener.close()
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"port {port} of {host} is in use: choose another with {option}"
                ) from error
            raise InputError(f"cannot listen on {host}, port {port}: {error}") from error
    return listeners


def format_address(address: tuple[str, int]) -> str:
    """Format an address as ADDRESS:PORT."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
