"""Chains: Gadgetron's version-2 configurations."""

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
    """Return the folder of the package's chains, in the package or in its source tree."""
    installed, sources = package / "config", package.parent
    in_sources = (sources / "setup.cfg").is_file() and (sources / "pyproject.toml").is_file()
    return sources / "config" if in_sources and not installed.is_dir() else installed


SHIPPED = shipped(PACKAGE)


class UnknownChain(InputError):  # noqa: N818
    """Unknown chain name; the message lists the known ones."""


@dataclass(frozen=True)
class Node:
    """A Python node of a chain.

    Attributes
    ----------
    module, target : str
        Module, and function or class in it.
    configuration : str
        `<configuration>` of the node, as XML.
    """

    module: str
    target: str
    configuration: str

    @property
    def name(self) -> str:
        """MODULE.TARGET."""
        return f"{self.module}.{self.target}"


@dataclass(frozen=True)
class Foreign:
    """A part of a chain that is not a Python node.

    Attributes
    ----------
    name : str
        Class of a C++ gadget, or tag of the element.
    port : str or None
        Port of a resident node.
    configuration : str
        `<configuration>` of the node, as XML.
    """

    name: str
    port: str | None = None
    configuration: str = "<configuration/>"


@dataclass(frozen=True)
class Chain:
    """A Gadgetron configuration of version 2.

    Attributes
    ----------
    name : str
        Name or path of the chain.
    xml : str
        Configuration.
    """

    name: str
    xml: str

    @classmethod
    def load(cls, name: str) -> Chain:
        """Load a chain by path, or by name from the package or Gadgetron's folder.

        Parameters
        ----------
        name : str
            Path or name, with or without .xml.

        Raises
        ------
        InputError
            The chain is unknown (the message lists the known ones) or not a version-2
            configuration.
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
        """Load a chain by the name that a client sends, never by path.

        Parameters
        ----------
        name : str
            Name, with or without .xml.
        folder : str, optional
            Folder of additional chains.

        Raises
        ------
        UnknownChain
            The chain is unknown.
        InputError
            As `load`.
        """
        paths = {p.name: p for place in _folders(folder)[::-1] for p in place.glob("*.xml")}
        for candidate in (name, f"{name}.xml"):
            if candidate in paths:
                return cls.load(str(paths[candidate]))
        raise UnknownChain(f"unknown chain '{name}': known are {', '.join(known(folder))}")

    def checked(self, folder: str | None = None) -> Chain:
        """Check that a chain received from a client runs only targets of known chains.

        Parameters
        ----------
        folder : str, optional
            Folder of additional chains.

        Returns
        -------
        Chain
            The same chain.

        Raises
        ------
        InputError
            The chain has another target.
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
        """Return the names of the writers, which select the items returned to a client."""
        root = _parse(self.xml, self.name)
        names = [writer.findtext("classname") or "" for writer in root.findall("writers/writer")]
        return names or ["ImageWriter"]

    def with_properties(self, values: Mapping[str, str]) -> Chain:
        """Return the chain with properties set on each of its Python nodes."""
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
        """Return the values of a property at all nodes."""
        elements = _parse(self.xml, self.name).iter("property")
        return {prop.get("value") or "" for prop in elements if prop.get("name") == name}

    def without(self, name: str) -> Chain:
        """Return the chain without a property."""
        if not self.values(name):
            return self
        root = _parse(self.xml, self.name)
        for configuration in root.iter("configuration"):
            for element in configuration.findall("property"):
                if element.get("name") == name:
                    configuration.remove(element)
        return Chain(self.name, ElementTree.tostring(root, encoding="unicode"))

    def nodes(self) -> list[Node]:
        """Return the nodes of a chain that has only Python nodes.

        Raises
        ------
        InputError
            The chain has a part that needs a Gadgetron server.
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
        """Return all parts of the stream in the order of the XML, including those of branches.

        Raises
        ------
        InputError
            The stream is empty, or a Python node has no module or target.
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
    """Return the path of a chain given by path or name, with or without .xml, or None."""
    for candidate in (name, f"{name}.xml"):
        for path in (Path(candidate), SHIPPED / candidate, INSTALLED / candidate):
            if path.is_file():
                return path
    return None


def known(folder: str | None = None) -> list[str]:
    """Return the names of all chains, including those in `folder`."""
    return sorted({path.name for place in _folders(folder) for path in place.glob("*.xml")})


def _folders(folder: str | None = None) -> list[Path]:
    return [*([] if folder is None else [Path(folder)]), SHIPPED, INSTALLED]


def _parse(xml: str, name: str) -> ElementTree.Element:
    root = parse(xml, name)
    if root.tag.endswith("gadgetronStreamConfiguration"):
        raise InputError(
            f"{name}: legacy <gadgetronStreamConfiguration>, in which Gadgetron ignores Python "
            "nodes; expected a <configuration> of version 2"
        )
    if root.tag != "configuration" or (root.findtext("version") or "").strip() != "2":
        raise InputError(f"{name}: not a chain, expected a <configuration> of <version> 2")
    return root
