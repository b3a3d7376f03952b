"""Serve scans to clients, and nodes to Gadgetron servers, with the weights loaded once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Device
from scoremri_core.errors import InputError


def serve(
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", metavar="ADDRESS", help="Listen here; repeat.", show_default="loopback"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 9002,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            "--prior",
            metavar="NAME_OR_PATH",
            help="Prior that scans may use; repeat.",
            show_default="default",
        ),
    ] = None,
    device: Device = "auto",
    chains: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of further chains.", show_default="none"),
    ] = None,
    capture: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Save every scan here, for replay.", show_default="not saved"
        ),
    ] = None,
    stall: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="Pause allowed in the middle of a message."),
    ] = 60.0,
) -> None:
    """Serve scans over Gadgetron's protocol until Ctrl-C.

    SIGTERM does the same: open scans finish, new ones are refused.
    """
    from gadgets.service.server import LOOPBACK, Server
    from gadgets.service.shared import Shared

    for folder in (chains, capture):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    server = Server(host or LOOPBACK, port, stall=stall, chains=str(chains) if chains else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    try:  # clients may come while the weights are loaded: they wait
        shared = Shared.load(prior or ["default"], device, str(capture or ""))
    except InputError:
        server.close()
        raise
    server.run(shared)
