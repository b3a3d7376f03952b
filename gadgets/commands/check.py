"""Check that a chain will run, before a scanner asks for it."""

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
from gadgets.protocol.gadgetron.chain import SHIPPED, Chain, Foreign, Node, find
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError, not_installed

DICOM = "DicomFinishGadget"
SIXTEEN_BITS = ("FloatToUShortGadget", "FloatToShortGadget")


def check(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="Chain, by path or by name.")],
) -> int:
    """Check that a chain will run here, from modules to device.

    A Gadgetron server shows its client no image and no message where a module is not found. This
    says why: run it with the Python and in the environment that the server has. A name is looked
    up where Gadgetron looks, in $GADGETRON_HOME/share/gadgetron/config, and without Gadgetron among
    the chains of this package. Ends with exit code 2 and one sentence for each problem.
    """
    found = Chain.load(str(_located(chain)))
    parts = found.parts()
    typer.echo(f"chain   {Path(found.name).resolve()}")
    _compare(Path(found.name))
    problems = list(_machine())
    able = not problems
    problems += _sixteen_bits(parts)
    for part in parts:
        if isinstance(part, Foreign):
            _tell(part)
        else:
            problems += _node(part, able)
    for problem in problems:
        typer.echo(f"scoremri: {' '.join(problem.split())}", err=True)
    return 2 if problems else 0


def _located(name: str) -> Path | str:
    """Where Gadgetron finds a chain of that name; the name itself for what is a path or not known.

    Raises
    ------
    InputError
        Where Gadgetron is here and does not find it.
    """
    folder = _gadgetrons()
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


def _gadgetrons() -> Path | None:
    """Folder in which Gadgetron looks for chains: that of $GADGETRON_HOME, or of its program."""
    home, program = os.environ.get("GADGETRON_HOME"), shutil.which("gadgetron")
    if not home and program is None:
        return None
    root = Path(home) if home else Path(str(program)).resolve().parent.parent
    return root / "share" / "gadgetron" / "config"


def _compare(path: Path) -> None:
    """Say where a chain of this package's name has another content than the package's."""
    ours = SHIPPED / path.name
    if ours.is_file() and not ours.samefile(path) and ours.read_bytes() != path.read_bytes():
        typer.echo(f"        differs from that of this scoremri, {ours}")


def _machine() -> Iterator[str]:
    """Say what runs here; yield what is wrong with it."""
    typer.echo(f"Python  {platform.python_version()}, {sys.executable}")
    # As Gadgetron looks for it; links are not followed, for they are what makes an environment.
    first = shutil.which("python") or shutil.which("python3")
    if first and Path(first).absolute().parent != Path(sys.executable).absolute().parent:
        typer.echo(f"        Gadgetron takes the first on its PATH, here another: {first}")
    home = Path(gadgets.__file__).parent
    typer.echo(f"module  scoremri {version('scoremri')}, {home}; gadgetron {version('gadgetron')}")
    try:
        import torch

        from gadgets.stages import accumulate, buffers  # noqa: F401  (a target imports them late)
        from scoremri_core import reconstruct  # noqa: F401
        from scoremri_core.recon.request import find_device
    except ModuleNotFoundError as error:
        yield not_installed(error)
        return
    except Exception as error:  # noqa: BLE001  (a broken installation fails in many ways)
        yield f"{sys.executable} cannot import what it needs: {type(error).__name__}: {error}"
        return
    device = find_device("auto")
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    typer.echo(f"torch   {torch.__version__}, device {device}{name}")


def _sixteen_bits(parts: Sequence[Node | Foreign]) -> Iterator[str]:
    """What ends Gadgetron's process where it writes DICOM; see `config/score_recon_dicom.xml`."""
    names = [part.name for part in parts]
    dicom = names.index(DICOM) if DICOM in names else 0
    for name in names[:dicom]:
        if name in SIXTEEN_BITS:
            yield (
                f"{name} before {DICOM} ends Gadgetron's process on images whose number of pixels "
                "is a multiple of 65,536, such as 256 x 256: use FloatToUIntGadget"
            )


def _tell(part: Foreign) -> None:
    """Say what a part needs beside this Python, which cannot see whether it is there."""
    if part.port is None:
        typer.echo(f"gadget  {part.name} needs a Gadgetron server")
        return
    typer.echo(f"node    connects to port {part.port}: scoremri serve must run there already")
    for problem in _set_wrongly(fromstring(part.configuration)):
        typer.echo(f"        which will refuse its {problem}")


def _node(node: Node, able: bool) -> Iterator[str]:
    """Say what a node is; yield what is wrong with it, beside a Python that is not `able`."""
    ours = node.module.partition(".")[0] == gadgets.__name__
    problems = list(_loading(node)) if able or not ours else []
    if ours:
        configuration = fromstring(node.configuration)
        problems += (wrong := list(_set_wrongly(configuration)))
        if able and not wrong:
            problems += _missing(Properties.from_config(configuration))
    runs = not problems and (able or not ours)
    typer.echo(f"node    {node.name}: {'ok' if runs else 'cannot run'}")
    for problem in problems:
        yield f"{node.name}: {problem}"


def _loading(node: Node) -> Iterator[str]:
    try:
        module = importlib.import_module(node.module)
    except ModuleNotFoundError as error:
        absent = error.name or node.module
        if node.module == absent or node.module.startswith(f"{absent}."):
            places = ", ".join(place or os.getcwd() for place in sys.path)
            yield (
                f"there is no module '{absent}' on sys.path ({places}): install it for "
                f"{sys.executable}, or put its folder on PYTHONPATH"
            )
        else:
            yield f"the module imports '{absent}', which {sys.executable} does not have"
    except Exception as error:  # noqa: BLE001  (anybody's module)
        yield f"the module cannot be imported: {type(error).__name__}: {error}"
    else:
        target = getattr(module, node.target, None)
        if target is None:
            yield f"{module.__file__} has no '{node.target}'"
        elif isinstance(target, type) and not hasattr(target, "handle"):
            yield f"the class '{node.target}' has no method handle(connection)"
        elif not callable(target):
            yield f"'{node.target}' is neither a function nor a class"


def _set_wrongly(configuration: Element) -> Iterator[str]:
    for element in configuration.iter("property"):
        alone = Element("configuration")
        alone.append(element)
        try:
            Properties.from_config(alone)
        except InputError as error:
            yield str(error)


def _missing(properties: Properties) -> Iterator[str]:
    """What the properties ask for and this machine does not have."""
    from scoremri_core import load_prior
    from scoremri_core.recon.request import find_device

    wanted: list[tuple[Any, str]] = [(find_device, properties.device)]
    if properties.sampler != "none":
        wanted.append((load_prior, properties.prior))
    for get, name in wanted:
        try:
            get(name)
        except (InputError, OSError) as error:
            yield str(error)
