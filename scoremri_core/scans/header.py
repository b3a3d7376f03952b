"""Strict parsing of the ISMRMRD header."""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from enum import Enum
from typing import Any, get_args, get_type_hints
from xml.etree import ElementTree

from ismrmrd import xsd
from ismrmrd.xsd import ismrmrdHeader
from xsdata.exceptions import ConverterWarning, ParserError

from scoremri_core.errors import InputError
from scoremri_core.scans.documents import decoded, parse, undeclared

logger = logging.getLogger(__name__)


def parse_header(document: str | bytes, name: str) -> ismrmrdHeader:
    """Parse an ISMRMRD header.

    Names of enumerations are case-insensitive. A value that cannot be converted, which xsdata
    leaves as text, is an error.

    Parameters
    ----------
    document : str or bytes
    name : str
        Source of the document, for errors.

    Returns
    -------
    ismrmrdHeader

    Raises
    ------
    InputError
        Invalid value, missing element, DOCTYPE or unknown encoding.
    """
    text = undeclared(document) if isinstance(document, str) else decoded(document, name)
    invalid = f"{name}: the XML header is not a valid ISMRMRD header"
    parse(text, invalid)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConverterWarning)
            header = xsd.CreateFromDocument(text.encode("utf-8", "replace"))
    except TypeError as error:
        raise InputError(f"{name}: {_missing(str(error))}") from error
    except (ValueError, ParserError) as error:
        raise InputError(invalid) from error
    _check(header, name, "")
    return header


def parse_valid_part(document: str | bytes, name: str) -> ismrmrdHeader:
    """Parse the valid sections of an ISMRMRD header; log and skip the others.

    Without `experimentalConditions`, which is required, the frequency is that of 1.5 T.

    Parameters
    ----------
    document : str or bytes
        See `parse_header`.
    name : str
        See `parse_header`.

    Returns
    -------
    ismrmrdHeader

    Raises
    ------
    InputError
        Not well-formed XML, or not an ISMRMRD header.
    """
    text = undeclared(document) if isinstance(document, str) else decoded(document, name)
    root = parse(text, f"{name}: the XML header is not a valid ISMRMRD header")
    sections = list(root)
    del root[:]
    namespace = root.tag.removesuffix("ismrmrdHeader")
    nominal = ElementTree.SubElement(root, f"{namespace}experimentalConditions")
    ElementTree.SubElement(nominal, f"{namespace}H1resonanceFrequency_Hz").text = "63866218"
    header = parse_header(ElementTree.tostring(root, "unicode"), name)
    for section in sections:
        valid = list(root)
        if section.tag == nominal.tag:
            root.remove(nominal)
        root.append(section)
        try:
            header = parse_header(ElementTree.tostring(root, "unicode"), name)
        except InputError as error:
            logger.warning("%s: ignoring this section", error)
            root[:] = valid
    return header


def _missing(error: str) -> str:
    """Translate the TypeError of a constructor: class.__init__() missing ... 'element'."""
    found = re.match(r"(?:\w+\.)*?(\w+?)(?:Type)?\.__init__\(\) missing .*?: (.*)", error)
    if found is None:
        return f"the XML header is not a valid ISMRMRD header ({error})"
    return f"the ISMRMRD header lacks {found[2]} in {found[1]}"


def _check(item: Any, name: str, path: str) -> None:
    """Check the types of all fields of a dataclass; convert names of enumerations."""
    hints = get_type_hints(type(item))
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        where = f"{path}.{field.name}" if path else field.name
        types = _types(hints[field.name])
        if not isinstance(value, list):
            setattr(item, field.name, _checked(value, types, name, where))
            continue
        for i, each in enumerate(value):
            value[i] = _checked(each, types, name, f"{where}[{i}]")


def _checked(value: Any, types: tuple[type, ...], name: str, where: str) -> Any:
    if dataclasses.is_dataclass(value):
        _check(value, name, where)
        return value
    if value is None or not isinstance(value, str) or str in types:
        return value
    text = value.strip()
    for kind in types:
        if issubclass(kind, Enum):
            for member in kind:
                if str(member.value).lower() == text.lower():
                    return member
            known = ", ".join(str(member.value) for member in kind)
            raise InputError(f"{name}: the ISMRMRD header has {where} '{text}': expected {known}")
    kind = types[0] if types else str
    expected = {int: "a whole number", float: "a number", bool: "true or false"}
    if kind not in expected:
        return value
    raise InputError(f"{name}: the ISMRMRD header has {where} '{text}': expected {expected[kind]}")


def _types(hint: Any) -> tuple[type, ...]:
    """Return the classes in a type such as `list[int]` or `float | None`."""
    inner = get_args(hint)
    if not inner:
        return (hint,) if isinstance(hint, type) and hint is not type(None) else ()
    return tuple(kind for each in inner for kind in _types(each))
