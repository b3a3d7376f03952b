"""Serve scans to clients, and nodes to Gadgetron servers, with the weights loaded once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Device
from gadgets.process import set_up
from gadgets.signals import not_ignored
from gadgets.threads import add_log_context
from scoremri_core.errors import InputError

SAVED = "/tmp/share/saved_data"  # as FIRE's servers have it


def _plain(text: str) -> str:
    """A value as FIRE's start scripts write it, -H=0.0.0.0, without the sign."""
    return text.removeprefix("=")


def _port(text: str | int) -> int:
    plain = _plain(str(text))
    if not plain.isdecimal() or int(plain) > 65535:
        raise InputError(f"'{plain}' is no port: expected a whole number from 0 to 65535")
    return int(plain)


def serve(
    host: Annotated[
        list[str] | None,
        typer.Option(
            "-H",
            "--host",
            metavar="ADDRESS",
            parser=_plain,
            help="Listen here; repeat.",
            show_default="loopback",
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option("-p", "--port", metavar="N", parser=_port, help="Port; 0 takes a free one."),
    ] = 9002,
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
    default_chain: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--default-chain",
            "--defaultConfig",
            metavar="NAME",
            parser=_plain,
            help="Chain in place of one that is not known.",
            show_default="such a scan is refused",
        ),
    ] = None,
    capture: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Save every scan here, for replay.", show_default="not saved"
        ),
    ] = None,
    savedata: Annotated[
        bool, typer.Option("-s", "--savedata", help="Save every scan in the folder that -S names.")
    ] = False,
    savedata_folder: Annotated[
        str,
        typer.Option(
            "-S",
            "--savedataFolder",
            metavar="DIR",
            parser=_plain,
            help="Folder for -s; made if it is not there.",
        ),
    ] = SAVED,
    multiprocessing: Annotated[
        bool,
        typer.Option(
            "-m",
            "--multiprocessing",
            help="Of FIRE, and without effect: scans run side by side anyway.",
        ),
    ] = False,
    stall: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="Pause allowed in the middle of a message."),
    ] = 60.0,
    keep: Annotated[
        int, typer.Option(min=0, help="Scans of later=true whose images are kept.")
    ] = 20,
    keep_seconds: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long they are kept.")
    ] = 3600.0,
    keep_in: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for them, where a server that starts anew finds them.",
            show_default="the user's own for this port",
        ),
    ] = None,
    status_port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=65535,
            help="Answer /healthz, /readyz, /metrics and a browser here; 0 takes a free one.",
            show_default="not answered",
        ),
    ] = None,
    show_names: Annotated[
        bool, typer.Option("--show-names", help="Show names of patients on the page of the status.")
    ] = False,
    logfile: Annotated[
        str | None,
        typer.Option(
            "-l",
            "--logfile",
            metavar="FILE",
            parser=_plain,
            help="Write the log here too.",
            show_default="stderr alone",
        ),
    ] = None,
    crlf: Annotated[
        bool, typer.Option("-r", "--crlf", help="End the lines of that file as Windows does.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log details.")] = False,
) -> None:
    """Serve scans over Gadgetron's protocol until Ctrl-C.

    SIGTERM and SIGHUP do the same: open scans finish, new ones are refused. FIRE's command line is
    understood: -H -p -d -l -r -v, and -s -S, by which it saves every scan.
    """
    set_up()
    from gadgets.service.later import Later
    from gadgets.service.server import LOOPBACK, Server
    from gadgets.service.shared import Shared
    from gadgets.stages.observer import ScanObserver

    _log(logfile, crlf, verbose)
    for folder in (chains, capture):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    if savedata:
        capture = _saved(savedata_folder, capture)
    hosts = host or LOOPBACK
    server = Server(
        hosts,
        port,
        stall=stall,
        chains=str(chains) if chains else None,
        default=default_chain,
        later=Later(keep, keep_seconds, keep_in or _kept_for(port)),
    )
    for number in {signal.SIGTERM, signal.SIGINT, *not_ignored()}:
        signal.signal(number, lambda *_: server.stop())
    with contextlib.ExitStack() as ends:
        observer: Callable[[], ScanObserver] = ScanObserver
        try:  # clients may come while the weights are loaded: they wait
            if status_port is not None:
                from gadgets.service.status import Status

                status = ends.enter_context(
                    contextlib.closing(Status(hosts, status_port, server, show_names))
                )
                observer = status.scan
            shared = Shared.load(prior or ["default"], device, str(capture or ""), observer)
        except InputError:
            server.close()
            raise
        server.run(shared)


def _saved(folder: str, capture: Path | None) -> Path:
    """The folder that -s saves in, as FIRE's scripts ask for it: made where it is not there."""
    if capture is not None:
        raise InputError("--capture and -s both save every scan: give one of them")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: scans cannot be saved there ({error.strerror})") from error
    return path


def _kept_for(port: int) -> Path | None:
    """Folder of the scans of later=true by the XDG rules; None where the port is a free one."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home, "scoremri", "later", str(port)) if port and os.path.isabs(home) else None


def _log(path: str | None, crlf: bool, verbose: bool) -> None:
    """Write the log to a file as well, and with its details."""
    from gadgets.commands import configure_logging

    if verbose:
        configure_logging(logging.DEBUG)
    if path is None:
        return
    end = "\r" if crlf else ""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: the log cannot be written ({error.strerror})") from error
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s %(name)s: %(message)s{end}"))
    handler.addFilter(add_log_context)
    logging.getLogger().addHandler(handler)
