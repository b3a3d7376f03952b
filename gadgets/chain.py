"""Chains: Gadgetron's version-2 configurations, found, read and given their properties."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from scoremri_core.errors import InputError

BESIDE_PACKAGE = Path(__file__).resolve().parent.parent / "config"
INSTALLED = Path(sysconfig.get_path("data")) / "share" / "gadgetron" / "config"


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
class Chain:
    """A configuration: the name it was asked by and its XML."""

    name: str
    xml: str

    @classmethod
    def load(cls, name: str) -> Chain:
        """Find a chain by path, or by name beside the package and where Gadgetron has its own.

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
            xml = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a chain ({error})") from error
        _parse(xml, str(path))
        return cls(str(path), xml)

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

    def nodes(self) -> list[Node]:
        """The nodes of a chain that consists of Python nodes alone.

        Raises
        ------
        InputError
            Naming the first part that only a Gadgetron server can run.
        """
        stream = _parse(self.xml, self.name).find("stream")
        if stream is None or not len(stream):
            raise InputError(f"{self.name}: the chain has no <stream> with nodes")
        return [self._node(element) for element in stream]

    def _node(self, element: ElementTree.Element) -> Node:
        execute = element.find("execute")
        if element.tag != "external" or execute is None or execute.get("type") != "python":
            part = element.findtext("classname") or f"<{element.tag}>"
            raise InputError(f"{self.name}: {part} needs a Gadgetron server (see --address)")
        module, target = execute.get("name"), execute.get("target")
        if not module or not target:
            raise InputError(f"{self.name}: an <execute> lacks its name= or target=")
        configuration = element.find("configuration")
        if configuration is None:
            configuration = ElementTree.Element("configuration")
        return Node(module, target, ElementTree.tostring(configuration, encoding="unicode"))


def find(name: str) -> Path | None:
    """Path of a chain given by path or by name, with or without .xml; None if there is none."""
    for candidate in (name, f"{name}.xml"):
        for path in (Path(candidate), BESIDE_PACKAGE / candidate, INSTALLED / candidate):
            if path.is_file():
                return path
    return None


def known() -> list[str]:
    """Names of the chains that can be asked for by name."""
    return sorted({path.name for at in (BESIDE_PACKAGE, INSTALLED) for path in at.glob("*.xml")})


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        # Without a DOCTYPE there are no entities, so none to expand or to fetch.
        raise InputError("it has a <!DOCTYPE>, which a chain must not have")


def _parse(xml: str, name: str) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(xml.encode())
        root = parser.close()
    except ElementTree.ParseError as error:
        raise InputError(f"{name}: not a chain, for it is not well-formed XML ({error})") from error
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if root.tag.endswith("gadgetronStreamConfiguration"):
        raise InputError(
            f"{name}: a legacy <gadgetronStreamConfiguration>, in which Gadgetron ignores Python "
            "nodes; expected a <configuration> of version 2"
        )
    if root.tag != "configuration" or (root.findtext("version") or "").strip() != "2":
        raise InputError(f"{name}: not a chain, expected a <configuration> of <version> 2")
    return root
