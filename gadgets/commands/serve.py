"""Run a server for clients with scans and for Gadgetron servers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Device, complete_priors
from gadgets.process import set_up
from gadgets.signals import handled_signals
from gadgets.threads import add_log_context
from scoremri_core.errors import InputError

SAVED = "/tmp/share/saved_data"  # default of FIRE


def _plain(text: str) -> str:
    """Remove the equals sign of FIRE's start scripts (-H=0.0.0.0)."""
    return text.removeprefix("=")


def _port(text: str | int) -> int:
    plain = _plain(str(text))
    if not plain.isdecimal() or int(plain) > 65535:
        raise InputError(f"port '{plain}': expected an integer from 0 to 65535")
    return int(plain)


def serve(
    host: Annotated[
        list[str] | None,
        typer.Option(
            "-H",
            "--host",
            metavar="ADDRESS",
            parser=_plain,
            help="Address to listen on. Repeatable.",
            show_default="loopback",
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option("-p", "--port", metavar="N", parser=_port, help="Port; 0 chooses a free one."),
    ] = 9002,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            "--prior",
            metavar="PRIOR",
            autocompletion=complete_priors,
            help="Prior that scans may use. Repeatable.",
            show_default="default",
        ),
    ] = None,
    device: Device = "auto",
    chains: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of additional chains.", show_default="none"),
    ] = None,
    default_chain: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--default-chain",
            "--defaultConfig",
            metavar="NAME",
            parser=_plain,
            help="Chain to use for unknown names.",
            show_default="refuse the scan",
        ),
    ] = None,
    capture: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to save every scan in, for replay.",
            show_default="not saved",
        ),
    ] = None,
    savedata: Annotated[
        bool, typer.Option("-s", "--savedata", help="Save every scan in the folder -S.")
    ] = False,
    savedata_folder: Annotated[
        str,
        typer.Option(
            "-S",
            "--savedataFolder",
            metavar="DIR",
            parser=_plain,
            help="Folder for -s, created if missing.",
        ),
    ] = SAVED,
    multiprocessing: Annotated[
        bool,
        typer.Option(
            "-m",
            "--multiprocessing",
            help="Accepted for FIRE, without effect: scans always run concurrently.",
        ),
    ] = False,
    stall: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="Timeout within a message."),
    ] = 60.0,
    keep: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Number of deferred scans (later=true) whose images are kept."
        ),
    ] = 20,
    keep_seconds: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Time to keep their images.")
    ] = 3600.0,
    keep_in: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for deferred scans, reused after a restart.",
            show_default="~/.local/state/scoremri/later/PORT",
        ),
    ] = None,
    status_port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=65535,
            help="Port of the status page, /healthz, /readyz and /metrics; 0 chooses a free one.",
            show_default="none",
        ),
    ] = None,
    show_names: Annotated[
        bool, typer.Option("--show-names", help="Show patient names on the status page.")
    ] = False,
    logfile: Annotated[
        str | None,
        typer.Option(
            "-l",
            "--logfile",
            metavar="FILE",
            parser=_plain,
            help="Additional log file.",
            show_default="none",
        ),
    ] = None,
    crlf: Annotated[
        bool, typer.Option("-r", "--crlf", help="Use CRLF line ends in the log file.")
    ] = False,
) -> None:
    """Run a server for Gadgetron's protocol until Ctrl-C.

    On Ctrl-C, SIGTERM or SIGHUP open scans finish and new ones are refused. Accepts the command
    line of FIRE servers: -H -p -d -l -r -v, and -s -S to save every scan.
    """
    set_up()
    from gadgets.service.later import Later
    from gadgets.service.listening import LOOPBACK
    from gadgets.service.server import Server
    from gadgets.service.shared import Shared
    from gadgets.stages.observer import ScanObserver

    _log(logfile, crlf)
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
    for number in {signal.SIGTERM, signal.SIGINT, *handled_signals()}:
        signal.signal(number, lambda *_: server.stop())
    with contextlib.ExitStack() as ends:
        observer: Callable[[], ScanObserver] = ScanObserver
        try:  # clients that connect while the weights are loaded wait
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
    """Return the folder of -s and -S, created if missing."""
    if capture is not None:
        raise InputError("--capture and -s: expected only one of them")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot save scans ({error.strerror})") from error
    return path


def _kept_for(port: int) -> Path | None:
    """Return the folder of deferred scans in XDG_STATE_HOME; None for a free port."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home, "scoremri", "later", str(port)) if port and os.path.isabs(home) else None


def _log(path: str | None, crlf: bool) -> None:
    """Set up the log file."""
    if path is None:
        return
    end = "\r" if crlf else ""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot write the log ({error.strerror})") from error
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s %(name)s: %(message)s{end}"))
    handler.addFilter(add_log_context)
    logging.getLogger().addHandler(handler)
