"""Check whether a chain can run on this machine."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from xml.etree.ElementTree import Element, fromstring

import typer

import gadgets
from gadgets.commands.options import complete_chains
from gadgets.protocol.gadgetron.chain import SHIPPED, Chain, Foreign, Node, find
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError, not_installed

DICOM = "DicomFinishGadget"
SIXTEEN_BITS = ("FloatToUShortGadget", "FloatToShortGadget")


def check(
    chain: Annotated[
        str,
        typer.Argument(
            metavar="CHAIN", help="Path or name of a chain.", autocompletion=complete_chains
        ),
    ],
) -> int:
    """Check modules, properties, prior and device of a chain.

    Run it with the Python and in the environment of the Gadgetron server, which returns neither
    image nor message if a module is not found. Names are looked up in
    $GADGETRON_HOME/share/gadgetron/config as by Gadgetron, without Gadgetron in this package. The
    exit code is 2 if there are problems, with one sentence for each on standard error.
    """
    loaded = Chain.load(str(_locate(chain)))
    parts = loaded.parts()
    typer.echo(f"chain   {Path(loaded.name).resolve()}")
    _compare(Path(loaded.name))
    problems = list(_check_machine())
    usable = not problems
    problems += _check_dicom(parts)
    for part in parts:
        if isinstance(part, Foreign):
            _describe(part)
        else:
            problems += _check_node(part, usable)
    for problem in problems:
        typer.echo(f"scoremri: {' '.join(problem.split())}", err=True)
    return 2 if problems else 0


def _locate(name: str) -> Path | str:
    """Return the path at which Gadgetron finds a chain; paths and unknown names unchanged.

    Raises
    ------
    InputError
        Gadgetron is installed and does not find the chain.
    """
    folder = _gadgetron_folder()
    if folder is None or Path(name).name != name:
        return name
    for candidate in (folder / name, folder / f"{name}.xml", Path(name)):
        if candidate.is_file():
            return candidate
    chain = find(name)
    known = ", ".join(sorted(path.name for path in folder.glob("*.xml"))) or "none"
    raise InputError(
        f"'{name}' is not in {folder}, where Gadgetron looks for chains: "
        + (f"known there are {known}" if chain is None else f"copy {chain} there")
    )


def _gadgetron_folder() -> Path | None:
    """Return the folder of Gadgetron's chains, by $GADGETRON_HOME or its program."""
    home, program = os.environ.get("GADGETRON_HOME"), shutil.which("gadgetron")
    if not home and program is None:
        return None
    root = Path(home) if home else Path(str(program)).resolve().parent.parent
    return root / "share" / "gadgetron" / "config"


def _compare(path: Path) -> None:
    """Report a chain that differs from the package's chain of that name."""
    ours = SHIPPED / path.name
    if ours.is_file() and not ours.samefile(path) and ours.read_bytes() != path.read_bytes():
        typer.echo(f"        differs from the installed version, {ours}")


def _check_machine() -> Iterator[str]:
    """Print Python, packages and device; yield problems."""
    typer.echo(f"Python  {platform.python_version()}, {sys.executable}")
    # as Gadgetron does; links are not resolved, since virtual environments consist of links
    first = shutil.which("python") or shutil.which("python3")
    if first and Path(first).absolute().parent != Path(sys.executable).absolute().parent:
        typer.echo(f"        Gadgetron would use the first on its PATH: {first}")
    home = Path(gadgets.__file__).parent
    typer.echo(f"module  scoremri {version('scoremri')}, {home}; gadgetron {version('gadgetron')}")
    try:
        import torch

        from gadgets.stages import accumulate, buffers  # noqa: F401  (imported late by targets)
        from scoremri_core import reconstruct  # noqa: F401
        from scoremri_core.recon.request import describe_device
    except ModuleNotFoundError as error:
        yield not_installed(error)
        return
    except Exception as error:  # noqa: BLE001  (broken installations fail in many ways)
        yield f"{sys.executable}: import failed: {type(error).__name__}: {error}"
        return
    typer.echo(f"torch   {torch.__version__}, device {describe_device('auto')}")


def _check_dicom(parts: Sequence[Node | Foreign]) -> Iterator[str]:
    """Yield gadgets that crash Gadgetron; see `config/score_recon_dicom.xml`."""
    names = [part.name for part in parts]
    dicom = names.index(DICOM) if DICOM in names else 0
    for name in names[:dicom]:
        if name in SIXTEEN_BITS:
            yield (
                f"{name} before {DICOM} crashes Gadgetron on images whose number of pixels "
                "is a multiple of 65,536, such as 256 x 256: use FloatToUIntGadget"
            )


def _describe(part: Foreign) -> None:
    """Print the requirements of a part that cannot be checked from Python."""
    if part.port is None:
        typer.echo(f"gadget  {part.name} needs a Gadgetron server")
        return
    typer.echo(f"node    connects to port {part.port}, where scoremri serve must be running")
    for problem in _invalid_properties(fromstring(part.configuration)):
        typer.echo(f"        which will refuse {problem}")


def _check_node(node: Node, usable: bool) -> Iterator[str]:
    """Print a node and yield its problems; `usable` is False if this Python has problems."""
    ours = node.module.partition(".")[0] == gadgets.__name__
    problems = list(_check_target(node)) if usable or not ours else []
    if ours:
        configuration = fromstring(node.configuration)
        problems += (invalid := list(_invalid_properties(configuration)))
        if usable and not invalid:
            problems += _check_resources(Properties.from_config(configuration))
    runs = not problems and (usable or not ours)
    typer.echo(f"node    {node.name}: {'ok' if runs else 'cannot run'}")
    for problem in problems:
        yield f"{node.name}: {problem}"


def _check_target(node: Node) -> Iterator[str]:
    try:
        module = importlib.import_module(node.module)
    except ModuleNotFoundError as error:
        absent = error.name or node.module
        if node.module == absent or node.module.startswith(f"{absent}."):
            places = ", ".join(place or os.getcwd() for place in sys.path)
            yield (
                f"no module '{absent}' on sys.path ({places}): install it for "
                f"{sys.executable}, or put its folder on PYTHONPATH"
            )
        else:
            yield f"the module imports '{absent}', which {sys.executable} does not have"
    except Exception as error:  # noqa: BLE001  (custom module)
        yield f"the module cannot be imported: {type(error).__name__}: {error}"
    else:
        target = getattr(module, node.target, None)
        if target is None:
            yield f"{module.__file__} has no '{node.target}'"
        elif isinstance(target, type) and not hasattr(target, "handle"):
            yield f"the class '{node.target}' has no method handle(connection)"
        elif not callable(target):
            yield f"'{node.target}' is neither a function nor a class"


def _invalid_properties(configuration: Element) -> Iterator[str]:
    for element in configuration.iter("property"):
        single = Element("configuration")
        single.append(element)
        try:
            Properties.from_config(single)
        except InputError as error:
            yield str(error)


def _check_resources(properties: Properties) -> Iterator[str]:
    """Yield missing devices and priors."""
    from scoremri_core import load_prior
    from scoremri_core.recon.request import find_device

    resources: list[tuple[Any, str]] = [(find_device, properties.device)]
    if properties.sampler != "none":
        resources.append((load_prior, properties.prior))
    for get, name in resources:
        try:
            get(name)
        except (InputError, OSError) as error:
            yield str(error)
