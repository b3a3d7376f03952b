"""Chains: Gadgetron's version-2 configurations, found, read and given their properties."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from scoremri_core.errors import InputError
from scoremri_core.scans.documents import decoded, parse

PACKAGE = Path(__file__).resolve().parents[2]
INSTALLED = Path(sysconfig.get_path("data")) / "share" / "gadgetron" / "config"


def shipped(package: Path) -> Path:
    """Folder of the chains that belong to this package: within it, or beside it in its sources."""
    own, sources = package / "config", package.parent
    in_sources = (sources / "setup.cfg").is_file() and (sources / "pyproject.toml").is_file()
    return sources / "config" if in_sources and not own.is_dir() else own


SHIPPED = shipped(PACKAGE)


class UnknownChain(InputError):  # noqa: N818  (it says what it is, like StopIteration)
    """A name that no chain has; the sentence lists those that there are."""


@dataclass(frozen=True)
class Node:
    """A Python node of a chain: where its target is, and its `<configuration>` as XML."""

    module: str
    target: str
    configuration: str

    @property
    def name(self) -> str:
        """Module and target."""
        return f"{self.module}.{self.target}"


@dataclass(frozen=True)
class Foreign:
    """A part of a chain that is no Python node of its own process.

    Attributes
    ----------
    name : class of a C++ gadget, or what the part is.
    port : where a node that runs already is connected to, or None.
    configuration : of the node, as XML.
    """

    name: str
    port: str | None = None
    configuration: str = "<configuration/>"


@dataclass(frozen=True)
class Chain:
    """A configuration: the name it was asked by and its XML."""

    name: str
    xml: str

    @classmethod
    def load(cls, name: str) -> Chain:
        """Find a chain by path, or by name in the package and where Gadgetron has its own.

        Raises
        ------
        InputError
            Where there is none of that name (the known ones are listed), or it is not a
            version-2 configuration.
        """
        path = find(name)
        if path is None:
            raise InputError(f"unknown chain '{name}': known are {', '.join(known())}")
        try:
            xml = decoded(path.read_bytes(), str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read as a chain ({error})") from error
        _parse(xml, str(path))
        return cls(str(path), xml)

    @classmethod
    def served(cls, name: str, folder: str | None = None) -> Chain:
        """Find a chain that a client names: in the known folders and in `folder`, nowhere else.

        Raises
        ------
        UnknownChain
            Where there is none of that name, which a path never is.
        InputError
            As `load`.
        """
        paths = {p.name: p for place in _folders(folder)[::-1] for p in place.glob("*.xml")}
        for candidate in (name, f"{name}.xml"):
            if candidate in paths:
                return cls.load(str(paths[candidate]))
        raise UnknownChain(f"unknown chain '{name}': known are {', '.join(known(folder))}")

    def checked(self, folder: str | None = None) -> Chain:
        """The same chain, if it names no targets but those of the chains that `served` finds.

        A chain that comes over the network must not choose what code runs here.

        Raises
        ------
        InputError
            Naming a target that is not known.
        """
        targets = set()
        for place in _folders(folder):
            for path in place.glob("*.xml"):
                try:
                    targets |= {node.name for node in Chain.load(str(path)).nodes()}
                except InputError:
                    continue  # a chain that needs a Gadgetron server
        for node in self.nodes():
            if node.name not in targets:
                raise InputError(
                    f"{self.name}: the target {node.name} is in none of this server's chains: "
                    f"known are {', '.join(sorted(targets))}"
                )
        return self

    def writers(self) -> list[str]:
        """Names of the chain's writers, which say what goes back to a client."""
        root = _parse(self.xml, self.name)
        names = [writer.findtext("classname") or "" for writer in root.findall("writers/writer")]
        return names or ["ImageWriter"]

    def with_properties(self, values: Mapping[str, str]) -> Chain:
        """The same chain with properties set on each of its Python nodes."""
        if not values:
            return self
        root = _parse(self.xml, self.name)
        for external in root.iter("external"):
            configuration = external.find("configuration")
            if configuration is None:
                configuration = ElementTree.SubElement(external, "configuration")
            present = {p.get("name"): p for p in configuration.findall("property")}
            for key, value in values.items():
                element = present.get(key)
                if element is None:
                    element = ElementTree.SubElement(configuration, "property", name=key)
                element.set("value", value)
        return Chain(self.name, ElementTree.tostring(root, encoding="unicode"))

    def values(self, name: str) -> set[str]:
        """Values that nodes have for a property."""
        every = _parse(self.xml, self.name).iter("property")
        return {each.get("value") or "" for each in every if each.get("name") == name}

    def without(self, name: str) -> Chain:
        """The same chain, its nodes without a property."""
        if not self.values(name):
            return self
        root = _parse(self.xml, self.name)
        for configuration in root.iter("configuration"):
            for each in configuration.findall("property"):
                if each.get("name") == name:
                    configuration.remove(each)
        return Chain(self.name, ElementTree.tostring(root, encoding="unicode"))

    def nodes(self) -> list[Node]:
        """The nodes of a chain that consists of Python nodes alone.

        Raises
        ------
        InputError
            Naming the first part that only a Gadgetron server can run.
        """
        nodes = []
        for element in self._stream():
            part = self._part(element)
            if isinstance(part, Foreign):
                raise InputError(
                    f"{self.name}: {part.name} needs a Gadgetron server (see --address)"
                )
            nodes.append(part)
        return nodes

    def parts(self) -> list[Node | Foreign]:
        """Everything that data passes on its way, in the order of the XML; branches are opened.

        Raises
        ------
        InputError
            Where there is nothing, or a Python node lacks its module or target.
        """
        tags = ("gadget", "external", "branch", "merge", "distributor")
        return [self._part(element) for element in self._stream().iter() if element.tag in tags]

    def _stream(self) -> ElementTree.Element:
        stream = _parse(self.xml, self.name).find("stream")
        if stream is None or not len(stream):
            raise InputError(f"{self.name}: the chain has no <stream> with nodes")
        return stream

    def _part(self, element: ElementTree.Element) -> Node | Foreign:
        configuration = element.find("configuration")
        if configuration is None:
            configuration = ElementTree.Element("configuration")
        text = ElementTree.tostring(configuration, encoding="unicode")
        execute, connect = element.find("execute"), element.find("connect")
        if element.tag != "external" or execute is None or execute.get("type") != "python":
            name = element.findtext("classname") or f"<{element.tag}>"
            return Foreign(name, None if connect is None else connect.get("port"), text)
        module, target = execute.get("name"), execute.get("target")
        if not module or not target:
            raise InputError(f"{self.name}: an <execute> lacks its name= or target=")
        return Node(module, target, text)


def find(name: str) -> Path | None:
    """Path of a chain given by path or by name, with or without .xml; None if there is none."""
    for candidate in (name, f"{name}.xml"):
        for path in (Path(candidate), SHIPPED / candidate, INSTALLED / candidate):
            if path.is_file():
                return path
    return None


def known(folder: str | None = None) -> list[str]:
    """Names of the chains that can be asked for by name, those in `folder` among them."""
    return sorted({path.name for place in _folders(folder) for path in place.glob("*.xml")})


def _folders(folder: str | None = None) -> list[Path]:
    return [*([] if folder is None else [Path(folder)]), SHIPPED, INSTALLED]


def _parse(xml: str, name: str) -> ElementTree.Element:
    root = parse(xml, name)
    if root.tag.endswith("gadgetronStreamConfiguration"):
        raise InputError(
            f"{name}: a legacy <gadgetronStreamConfiguration>, in which Gadgetron ignores Python "
            "nodes; expected a <configuration> of version 2"
        )
    if root.tag != "configuration" or (root.findtext("version") or "").strip() != "2":
        raise InputError(f"{name}: not a chain, expected a <configuration> of <version> 2")
    return root
